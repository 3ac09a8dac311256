use std::os::unix::fs::MetadataExt;

use super::*;

#[test]
fn an_image_that_nests_by_its_own_links_is_unpacked_and_removed_with_few_descriptors() -> Outcome {
    let few = rustix::process::Rlimit {
        current: Some(256),
        maximum: rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum,
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, few)?;
    let mut fixture = Fixture::new();
    // No path has more than 46 parts; what they lead to has 1,350.
    let below = vec!["a"; 45].join("/");
    let (mut entries, mut names) = (Vec::new(), Vec::new());
    for number in 0..30 {
        let above = match number {
            0 => below.clone(),
            _ => format!("l{}/{below}", number - 1),
        };
        names.push((format!("l{number}"), above));
    }
    for (link, folder) in &names {
        entries.push((FOLDER, folder.as_str(), &b""[..]));
        entries.push((LINK, link.as_str(), folder.as_bytes()));
    }
    let image = fixture.tars(&[&entries]);
    let opened = fixture.open(&image, &Limits::default())?;
    let deepest = opened.rootfs.join("l1").join(&below);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(deepest)?.permissions());
    assert_eq!(mode & 0o777, 0o555);
    // Another process holds it against its list, and takes it as it is.
    let inode = |path: &Path| std::fs::metadata(path).map(|found| MetadataExt::ino(&found));
    let before = inode(&opened.rootfs)?;
    fixture.store = store_in(fixture.around.path());
    fixture.open(&image, &Limits::default())?;
    assert_eq!(inode(&opened.rootfs)?, before);
    let collected = fixture.store.collect(&BTreeSet::new())?;
    let collected = collected.ok_or("nobody writes")?;
    assert_eq!((collected.trees, collected.left.len()), (1, 0));
    assert!(!opened.rootfs.exists());
    Ok(())
}
