use super::*;
use proptest::prelude::*;

type Entries = Vec<(Vec<u8>, Content, Option<Sha256>)>;

fn write(entries: &Entries, magic: &[u8]) -> Vec<u8> {
    let mut records = Records::new(Vec::new(), magic).expect("in memory");
    for (path, content, sha256) in entries {
        let pushed = records.push(path, *content, sha256.as_ref());
        pushed.expect("in memory");
    }
    records.out
}

fn read(list: &[u8]) -> io::Result<Entries> {
    let mut entries = Vec::new();
    read_list(list, |path, content, sha256| {
        entries.push((path.to_vec(), content, sha256));
    })?;
    Ok(entries)
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        entries in proptest::collection::vec(("[ab/\n]{1,9}", 0_u64..9, any::<u128>()), 0..9),
        has_sha256 in any::<bool>(),
    ) {
        let magic = if has_sha256 { MAGIC_SHA256 } else { MAGIC };
        let entries: Entries = entries
            .into_iter()
            .map(|(path, size, sum)| {
                let sha256 = (has_sha256 && size > 0).then(|| [sum.to_le_bytes()[0]; 32]);
                (path.into_bytes(), Content { size, sum }, sha256)
            })
            .collect();
        prop_assert_eq!(read(&write(&entries, magic)).expect("good"), entries);
    }

    #[test]
    fn any_bytes_are_read_or_refused_and_no_path_is_too_long(
        bytes in proptest::collection::vec(any::<u8>(), 0..200)
    ) {
        for (path, ..) in read(&[MAGIC, &bytes[..]].concat()).unwrap_or_default() {
            prop_assert!(path.len() <= MAX_PATH);
        }
    }
}

#[test]
fn what_is_torn_or_strange_is_an_error() {
    let content = Content { size: 300, sum: 7 };
    let list = write(&vec![(b"some/path".to_vec(), content, None)], MAGIC);
    for cut in 0..list.len() {
        assert_eq!(read(&list[..cut]).is_ok(), cut == MAGIC.len(), "{cut}");
    }
    let long = [&[0x80, 0x00], &list[MAGIC.len() + 1..]].concat();
    for strange in [
        [b"kobune files 3\n", &list[MAGIC.len()..]].concat(),
        // Shares bytes with no path before it; a number written longer than it is.
        [MAGIC, &[1][..], &list[MAGIC.len() + 1..]].concat(),
        [MAGIC, &long[..]].concat(),
        [MAGIC, &[0xff; 10][..], &list[MAGIC.len() + 1..]].concat(),
    ] {
        read(&strange).expect_err("strange");
    }
}

#[test]
fn a_sum_is_the_one_that_others_know() {
    // What `printf abc | xxh128sum` says.
    let mut summer = Summer::default();
    summer.update(b"a");
    summer.update(b"bc");
    let content = summer.finish();
    assert_eq!(content.size, 3);
    assert_eq!(
        format!("{:032x}", content.sum),
        "06b05ab6733a618578af5f94892f3950"
    );
    assert_eq!(summer.finish().size, 0);
}
