//! Many accounts at once: every metadata route in a mix as devices and people ask for them, at a fixed rate over all accounts together, open loop as
//! in `routes`.

use super::Options;
use super::client::{Client, good};
use super::cpu::Cpu;
use super::figures::{Figures, Latencies, Target};
use super::routes::{self, Ground, LOST_AFTER, Make};
use super::running::Running;
use anyhow::{Result, ensure};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Of a hundred requests, how many are of each route.
const MIX: [(&str, usize); 18] = [
    ("GET /sync/v1/{ns}/delta", 25),
    ("POST /sync/v1/{ns}/commit", 15),
    ("GET /metadata/files", 12),
    ("GET /sync/delta", 6),
    ("GET /metadata/files/{id}", 6),
    ("POST /upload/v1/{ns}/missing", 6),
    ("GET /auth/verify", 4),
    ("GET /sync/v1/namespaces", 4),
    ("POST /upload/init", 4),
    ("PUT /metadata/files/{id}", 4),
    ("GET /api/v1/files/{id}/versions", 3),
    ("DELETE /metadata/files/{id}", 3),
    ("GET /auth/me", 2),
    ("GET /api/v1/me/usage", 2),
    ("GET /api/v1/trash", 1),
    ("GET /api/v1/devices", 1),
    ("GET /api/v1/me/sessions", 1),
    ("POST /api/v1/trash/restore", 1),
];

/// The routes of a hundred requests, spread over them.
fn order(routes: &[(&'static str, Make)]) -> Result<Vec<usize>> {
    let mut slots: Vec<(usize, usize)> = Vec::new();
    for (name, share) in MIX {
        let Some(route) = routes.iter().position(|(known, _)| *known == name) else { anyhow::bail!("no route {name}") };
        slots.extend((0..share).map(|k| ((2 * k + 1) * 1000 / (2 * share), route)));
    }
    ensure!(slots.len() == 100 && MIX.len() == routes.len(), "the mix is not a hundred requests of every route");
    slots.sort_unstable();
    Ok(slots.into_iter().map(|(_, route)| route).collect())
}

/// One request: whose, of which route, and how many of that route the account had before.
struct Asked {
    account: usize,
    route: usize,
    number: usize,
}

/// Every request in turn. Each account comes to ask for each route: who is next moves on from one hundred to the next.
fn plan(requests: usize, accounts: usize, order: &[usize]) -> Vec<Asked> {
    let mut counts = BTreeMap::<(usize, usize), usize>::new();
    let asked = |n: usize| {
        let (account, route) = ((n + n / order.len() * 37) % accounts, order[n % order.len()]);
        let count = counts.entry((account, route)).or_default();
        *count += 1;
        Asked { account, route, number: *count - 1 }
    };
    (0..requests).map(asked).collect()
}

/// Measures the mix.
pub async fn run(options: &Options, running: &Running, figures: &mut Figures) -> Result<()> {
    let admin = Client::login(running.url(0), &options.email, &options.password).await?;
    let requests = (options.rate * options.seconds) as usize;
    let routes = Arc::new(routes::all());
    let order = order(&routes)?;
    let plan = plan(requests, options.accounts, &order);
    let uses_up = |route: usize| routes[route].0.starts_with("DELETE") || routes[route].0.ends_with("restore");
    let each = plan.iter().filter(|asked| uses_up(asked.route)).map(|asked| asked.number + 1).max().unwrap_or(1);
    let mut grounds: Vec<(Ground, Client)> = Vec::new();
    for n in 0..options.accounts {
        let client = admin.add_user(&format!("mixed{n}@example.org"), "a password for a mix").await?;
        let ground = routes::ground(&client, each).await?;
        grounds.push((ground, client));
    }
    let grounds = Arc::new(grounds);
    let cpu = Cpu::start();
    let begun = Instant::now() + Duration::from_millis(100);
    let mut tasks = tokio::task::JoinSet::new();
    for (n, Asked { account, route, number }) in plan.into_iter().enumerate() {
        let due = begun + Duration::from_secs_f64(n as f64 / options.rate as f64);
        let url = running.url(n).to_owned();
        let (grounds, routes) = (grounds.clone(), routes.clone());
        tasks.spawn(async move {
            let (ground, client) = &grounds[account];
            let request = routes[route].1(ground, &client.at(&url), number);
            tokio::time::sleep_until(due.into()).await;
            let answer =
                tokio::time::timeout(LOST_AFTER, async { good(request.send().await?).await?.bytes().await.map_err(Into::into) }).await;
            (route, due.elapsed(), answer.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer in {LOST_AFTER:?}"))).err())
        });
    }
    let (mut by_route, mut all, mut failures) = (BTreeMap::<usize, Latencies>::new(), Latencies::default(), Vec::new());
    while let Some(done) = tasks.join_next().await {
        let (route, took, failure): (usize, Duration, Option<anyhow::Error>) = done?;
        by_route.entry(route).or_default().add(took);
        all.add(took);
        failures.extend(failure.map(|error| format!("{}: {error:#}", routes[route].0)));
    }
    let cpu = cpu.per_request(requests);
    eprintln!("   CPU for each: {cpu}");
    figures.row("mixed", "all requests, p95", all.ms(0.95), "ms", Target::AtMost(100.0));
    let mut figure = serde_json::Map::new();
    for (route, latencies) in &mut by_route {
        figures.row("mixed", format!("{}, p95", routes[*route].0), latencies.ms(0.95), "ms", Target::AtMost(100.0));
        figure.insert(routes[*route].0.into(), latencies.json());
    }
    let first = failures.first().map(|failure| format!(", first: {failure}")).unwrap_or_default();
    figures.row("mixed", format!("failed{first}"), failures.len() as f64, "", Target::AtMost(0.0));
    figures.put(
        "mixed",
        json!({"rate_per_s": options.rate, "seconds": options.seconds, "accounts": options.accounts, "all": all.json(), "cpu_each": cpu, "by_route": figure,
            "failed": failures.len()}),
    );
    Ok(())
}
