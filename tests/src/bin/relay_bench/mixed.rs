//! Many accounts at once: every metadata route in a mix as devices and people ask for them, at a fixed rate over all accounts together, open loop as
//! in `routes`.

use super::Options;
use super::client::{Client, good};
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

/// Measures the mix.
pub async fn run(options: &Options, running: &Running, figures: &mut Figures) -> Result<()> {
    let admin = Client::login(running.url(0), &options.email, &options.password).await?;
    let requests = (options.rate * options.seconds) as usize;
    let routes = Arc::new(routes::all());
    let order = order(&routes)?;
    // Of the routes that use something up, the most frequent.
    let each = (requests / options.accounts * 4).div_ceil(100) + 1;
    let mut grounds: Vec<(Ground, Client)> = Vec::new();
    for n in 0..options.accounts {
        let client = admin.add_user(&format!("mixed{n}@example.org"), "a password for a mix").await?;
        let ground = routes::ground(&client, each).await?;
        grounds.push((ground, client));
    }
    let grounds = Arc::new(grounds);
    let begun = Instant::now() + Duration::from_millis(100);
    let (mut tasks, mut counts) = (tokio::task::JoinSet::new(), BTreeMap::<(usize, usize), usize>::new());
    for n in 0..requests {
        let due = begun + Duration::from_secs_f64(n as f64 / options.rate as f64);
        let (account, route) = ((n * 7919) % options.accounts, order[n % order.len()]);
        let count = counts.entry((account, route)).or_default();
        let (number, url) = (*count, running.url(n).to_owned());
        *count += 1;
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
        json!({"rate_per_s": options.rate, "seconds": options.seconds, "accounts": options.accounts, "all": all.json(), "by_route": figure,
            "failed": failures.len()}),
    );
    Ok(())
}
