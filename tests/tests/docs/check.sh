# Nothing but the programs: the daemon was never started.
