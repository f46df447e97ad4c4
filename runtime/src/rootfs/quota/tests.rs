use super::*;

/// No file system in memory, and none of the kernel's, has project quotas.
#[test]
fn a_file_system_without_quotas_says_what_it_takes() {
    for dir in ["/proc", "/dev/shm"] {
        match quotas_enforced(Path::new(dir)) {
            Err(QuotaError::NotEnforced { .. }) => {}
            other => panic!("{dir}: {other:?}"),
        }
    }
}

/// Which way a file system was asked, and where.
fn asked(dir: &Path, by_descriptor: impl Fn() -> io::Result<()>) -> (Vec<Option<PathBuf>>, bool) {
    let asked = std::cell::RefCell::new(Vec::new());
    let answer = on_file_system(dir, |file_system| match file_system {
        FileSystem::Of(_) => {
            asked.borrow_mut().push(None);
            by_descriptor()
        }
        FileSystem::On(node) => {
            let node = PathBuf::from(node.to_str().unwrap());
            asked.borrow_mut().push(Some(node));
            Ok(())
        }
    });
    (asked.into_inner(), answer.is_ok())
}

#[test]
fn the_device_is_asked_only_where_the_kernel_does_not_know_the_call() {
    let unknown = || Err(Errno::ENOSYS.into());
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(asked(dir.path(), || Ok(())), (vec![None], true));
    let refused = asked(dir.path(), || Err(Errno::EPERM.into()));
    assert_eq!(refused, (vec![None], false));
    // Nothing in memory is on a device.
    assert_eq!(asked(Path::new("/proc"), unknown), (vec![None], false));
    let number = dir.path().metadata().unwrap().dev();
    if let Some(node) = node::of(number) {
        assert_eq!(asked(dir.path(), unknown), (vec![None, Some(node)], true));
    }
}
