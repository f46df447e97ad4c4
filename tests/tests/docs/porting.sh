# A board with nothing on it but the programs.
## kobune run --name hello docker.io/library/hello-world:latest
agent
