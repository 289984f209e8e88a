//! Two Ferry devices on a LAN, the relay on the sender's host; and four behind one uplink.

use crate::pair::{LIMIT, Pair, Place, noise};
use crate::table::Table;
use anyhow::{Result, ensure};
use ferry_tests::device::Device;
use ferry_tests::net::lab::{Lab, peers};
use ferry_tests::relay::Relay;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The pair. Processes end before their hosts go.
pub struct Ferry {
    a: Device,
    b: Device,
    _relay: Relay,
    place: Place,
}

impl Ferry {
    /// Starts all and waits until both are connected.
    pub fn start(dir: &Path) -> Result<Self> {
        let place = Place::new(dir)?;
        let relay = Relay::start_on(&place.a, place.folder.path(), &[]);
        let [a, b] = [("A", &place.a), ("B", &place.b)].map(|(name, host)| {
            let mut device = Device::new(place.folder.path(), name).on_host(host);
            device.start();
            device.login(&relay.url());
            if name == "A" {
                device.add_new("Bench")
            } else {
                device.attach("Bench")
            }
            device
        });
        let pair = Self { a, b, _relay: relay, place };
        pair.connected(Instant::now())?;
        Ok(pair)
    }

    fn connected(&self, start: Instant) -> Result<f64> {
        while !peers(&self.a).is_ok_and(|peers| peers.iter().any(|p| p["state"] == "connected")) {
            ensure!(start.elapsed() < Duration::from_secs(90), "they do not connect: {:?}", peers(&self.a));
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(start.elapsed().as_secs_f64())
    }
}

fn quiet(device: &Device) -> Result<()> {
    let answer = device.run(&["wait", "--timeout", "600"]);
    ensure!(answer.code == 0, "{} is not quiet: {}", device.name(), answer.err);
    Ok(())
}

impl Pair for Ferry {
    fn name(&self) -> String {
        "ferry".into()
    }

    fn place(&self) -> &Place {
        &self.place
    }

    fn roots(&self) -> (PathBuf, PathBuf) {
        (self.a.root().into(), self.b.root().into())
    }

    fn quiet(&self) -> Result<()> {
        quiet(&self.a)?;
        quiet(&self.b)
    }

    fn resident_bytes(&self) -> (u64, u64) {
        (self.a.resident_bytes(), self.b.resident_bytes())
    }

    fn reconnect(&mut self) -> Result<f64> {
        self.a.stop();
        self.b.stop();
        let start = Instant::now();
        self.a.start();
        self.b.start();
        self.connected(start)
    }

    fn latency_files(&self) -> usize {
        50
    }
}

/// New content on the relay that four devices behind one uplink of 50 Mbit/s want: how often it crosses the uplink.
pub fn uplink(dir: &Path, table: &mut Table) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("ferry-bench-").tempdir_in(dir)?;
    let mut lab = Lab::lay_below(folder, &[4, 1], &[]);
    let walls = [(0, 1), (1, 0)].map(|(from, to)| lab.router.block_between(lab.lans[from], lab.lans[to]));
    lab.begin();
    (0..4).for_each(|number| lab.until_connected(number, 3));
    let content: usize = 100 << 20;
    // The far device is done before the near ones may begin.
    lab.cut_wan_of(0);
    std::fs::write(lab.device(4).path("content"), noise(content, 7))?;
    quiet(lab.device(4))?;
    lab.router.limit(lab.lan(), 50);
    let before = lab.router.traffic(lab.lan());
    let start = Instant::now();
    lab.heal_wan_of(0);
    let there = |number: usize| crate::pair::is_long(&lab.device(number).path("content"), content);
    while !(0..4).all(there) {
        ensure!(start.elapsed() < LIMIT, "the content does not arrive");
        std::thread::sleep(Duration::from_millis(20));
    }
    let seconds = start.elapsed().as_secs_f64();
    let crossed = lab.router.traffic(lab.lan()).since(before);
    let ratio = crossed.out_bytes as f64 / content as f64;
    let wire = Some((crossed.out_bytes, crossed.in_bytes));
    let own = content as f64 * 8.0 / 50e6;
    table.note("100 MiB to 4 devices: times over WAN", "ferry", ratio, wire, format!("{seconds:.1} s; the uplink alone needs {own:.1} s"));
    drop(walls);
    Ok(())
}
