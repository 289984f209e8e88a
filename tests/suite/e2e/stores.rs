//! A relay that keeps its chunks on a real S3 server, with devices that know nothing of it; and packs that move to a directory while they work.

use super::rows::*;
use ferry_tests::cluster::Cluster;
use ferry_tests::device::Device;
use ferry_tests::poll::until_true;
use ferry_tests::relay::Relay;
use ferry_tests::s3::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};
use ferry_tests::tree;
use std::path::Path;
use std::time::Duration;

fn packs(folder: &Path) -> usize {
    tree::all_files(folder).iter().filter(|p| p.extension().is_some_and(|e| e == "pack")).count()
}

/// I5, I7, I8: what is committed is in the bucket; a migration that is killed goes on; the devices notice nothing.
#[test]
fn packs_on_s3_move_to_a_directory_while_devices_work() {
    let folder = tempfile::Builder::new().prefix("ferry-test-").tempdir().expect("a temporary folder");
    let (objects, attic) = (folder.path().join("s3"), folder.path().join("attic"));
    let s3 = S3Server::start(&objects);
    let (blobs, region) = (s3.blobs_url("one/relay"), format!("file://{}", attic.display()));
    let settings = [
        ("FERRY_RELAY__BLOBS__URL", blobs.as_str()),
        ("FERRY_RELAY__BLOBS__ACCESS_KEY", ACCESS_KEY),
        ("FERRY_RELAY__BLOBS__SECRET_KEY", SECRET_KEY),
        ("FERRY_RELAY__BLOBS__REGIONS__ATTIC__URL", region.as_str()),
    ];
    let relay = Relay::start_with(folder.path(), &settings);
    let devices = ["A", "B", "C"].map(|name| Device::new(folder.path(), name)).into();
    let mut cluster = Cluster::of_parts(folder, relay, devices);
    let url = cluster.relay.url();
    (0..2).for_each(|number| cluster.begin(number, &url));
    let d = cluster.devices[0].path("d");
    // One after another, so that they are packs of their own.
    for k in 0..12 {
        put(&d, &format!("file {k}"), k);
        cluster.settle();
    }
    put_bytes(&d, "large", &sized(&d, 99, 24 << 20));
    cluster.settle();
    let bucket = objects.join(BUCKET).join("one/relay");
    let before = packs(&bucket);
    assert!(before >= 10 && packs(&attic) == 0, "{before}");
    cluster.relay.verify();

    let migrate = ["migrate", "--from", "default", "--to", "attic"];
    let mut killed = cluster.relay.begin_storage(&migrate);
    until_true("a pack has moved", Duration::from_secs(60), || packs(&attic) > 0);
    let _ = killed.kill();
    let _ = killed.wait();
    cluster.relay.verify();
    put(&d, "meanwhile", 100);
    cluster.settle();
    let moved = cluster.relay.storage(&migrate);
    assert!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stderr));
    assert_eq!(packs(&bucket), 0, "everything has moved");
    let verified = cluster.relay.storage(&["verify", "--read-data"]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    // Whoever comes now, with nobody else there, gets everything from the attic.
    cluster.devices[..2].iter_mut().for_each(Device::stop);
    cluster.begin(2, &url);
    cluster.settle();
    assert_eq!(names(&cluster.devices[2].path("d")).len(), 14);
    cluster.finish();
}
