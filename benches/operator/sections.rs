//! The sections: one figure each, or a few related figures.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};

use crate::audit::{Audit, Requests};
use crate::cluster::Cluster;
use crate::figures::{Bar, chart, ms, quantile, spread};
use crate::jobs;
use crate::operator::Operator;
use crate::world::{
    FLAGS, Kubelet, PATIENCE, Seen, Unscheduled, claims, cpu, create, create_all, names, namespace, operator, rss,
    session,
};

fn say(what: &str, value: &str) {
    println!("{what:<72} {value}");
}

fn since(seen: &[Instant], sent: &[Instant]) -> Vec<Duration> {
    seen.iter().zip(sent).map(|(seen, sent)| seen.saturating_duration_since(*sent)).collect()
}

/// Time from just before the create request until the watch delivers the Job.
pub async fn latency(cluster: &Cluster) {
    let _operator = operator().await;
    let ns = namespace(cluster, "latency").await;
    let seen = Seen::jobs(cluster, &ns).await;
    let mut all = vec![];
    for round in ["warm", "a", "b", "c"] {
        let names = names(&format!("s{round}"), 50);
        claims(cluster, &ns, &names).await;
        for name in &names {
            let sent = create(cluster, &session(&ns, name)).await;
            let found = seen.all(std::slice::from_ref(name)).await;
            if round != "warm" {
                all.extend(since(&found, &[sent]));
            }
        }
    }
    say("apply -> Job, one after another, 3 x 50 (p50 / p99 / max)", &spread(&all));
    let mut all = vec![];
    for round in ["x", "y", "z"] {
        let names = names(&format!("b{round}"), 50);
        claims(cluster, &ns, &names).await;
        let objects: Vec<Value> = names.iter().map(|n| session(&ns, n)).collect();
        let sent = join_all(objects.iter().map(|o| create(cluster, o))).await;
        all.extend(since(&seen.all(&names).await, &sent));
    }
    say("apply -> Job, 50 at once, 3 rounds (p50 / p99 / max)", &spread(&all));
    let peers = [("K8up 2.15", 176.0), ("VolSync 0.16", 365.0), ("Kopiur 0.4.3", 735.0)];
    draw("latency", "apply to Job, 50 at once, p50, ms", ms(quantile(&all, 0.5)), &peers);
}

/// Draws our figure next to those of the peers, as measured.
fn draw(name: &str, title: &str, ours: f64, peers: &[Bar<'_>]) {
    let mut bars = vec![("Lifeboat", ours)];
    bars.extend(peers);
    chart(name, title, &bars);
}

/// Requests of twenty restores of one claim, until their first Job and over their life.
pub async fn requests(cluster: &Arc<Cluster>) {
    const COUNT: usize = 20;
    let _operator = operator().await;
    let ns = namespace(cluster, "requests").await;
    let first = namespace(cluster, "first").await;
    let names = names("r", COUNT);
    claims(cluster, &ns, &names).await;
    claims(cluster, &first, &names[..1]).await;
    let _pods = Unscheduled::of(cluster, &ns);
    // The first session of all opens watches.
    let seen = Seen::jobs(cluster, &first).await;
    create(cluster, &session(&first, &names[0])).await;
    seen.all(&names[..1]).await;
    let seen = Seen::jobs(cluster, &ns).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let audit = Audit::from_now();
    for name in &names {
        create(cluster, &session(&ns, name)).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    seen.all(&names).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let first = audit.requests(Some(&ns)).await;
    show("requests per restore until the Job and 2 s more", &first, COUNT);
    let quiet = Audit::from_now();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let rest = quiet.requests(Some(&ns)).await;
    show("requests per restore in 20 s while its Job waits", &rest, COUNT);
    let over = Seen::sessions(cluster, &ns, |o| o["status"]["phase"] == "Succeeded" && !jobs::is_held(o)).await;
    let kubelet = Kubelet::of(cluster, &ns).await;
    over.all(&names).await;
    drop(kubelet);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let life = audit.requests(Some(&ns)).await;
    show("requests per restore over its whole life", &life, COUNT);
    let peers = [("K8up 2.15", 3.6), ("VolSync 0.16", 13.2), ("Kopiur 0.4.3", 15.0)];
    let ours = (first.total() as f64 / COUNT as f64 * 100.0).round() / 100.0;
    draw("requests", "requests of a restore until its Job", ours, &peers);
}

fn show(what: &str, requests: &Requests, per: usize) {
    let each = |n: usize| (n as f64 / per as f64 * 100.0).round() / 100.0;
    let verbs = format!(
        "{} ({} writes, {} GET, {} LIST, {} watches in all)",
        each(requests.total()),
        each(requests.writes()),
        each(requests.of(&["get"])),
        each(requests.of(&["list"])),
        requests.of(&["watch"])
    );
    say(what, &verbs);
    for ((verb, resource), n) in &requests.0 {
        println!("    {verb:<8} {resource:<32} {}", each(*n));
    }
}

/// Time until the status names a missing object.
pub async fn broken(cluster: &Cluster) {
    let _operator = operator().await;
    for missing in ["Secret", "claim", "Repository"] {
        let ns = if missing == "Repository" {
            cluster.namespace("broken").await
        } else {
            namespace(cluster, "broken").await
        };
        let names = names("m", 10);
        if missing != "claim" {
            claims(cluster, &ns, &names).await;
        }
        if missing == "Secret" {
            let secret =
                json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "secret", "namespace": ns } });
            cluster.delete(&secret).await;
            let repository = json!({ "apiVersion": "stash.appscode.com/v1alpha1", "kind": "Repository", "metadata": { "name": "repo", "namespace": ns } });
            cluster
                .until(&repository, "the loss is known", |o| {
                    o.to_string().contains("SecretMissing") || o["status"].is_object()
                })
                .await;
        }
        let says = |o: &Value| {
            let (name, all) = (o["metadata"]["name"].as_str().unwrap_or_default(), o["status"].to_string());
            all.contains("Secret ")
                || all.contains("Repository ")
                || all.contains(&format!("PersistentVolumeClaim/{name}"))
        };
        let seen = Seen::sessions(cluster, &ns, says).await;
        let mut took = vec![];
        for name in &names {
            let sent = create(cluster, &session(&ns, name)).await;
            took.extend(since(&seen.all(std::slice::from_ref(name)).await, &[sent]));
        }
        say(&format!("a missing {missing} is named in status (p50 / p99 / max of 10)"), &spread(&took));
    }
}

/// Overhead of an ordered batch for each member, in addition to its Jobs.
pub async fn batch(cluster: &Arc<Cluster>) {
    const MEMBERS: usize = 50;
    let _operator = operator().await;
    let ns = namespace(cluster, "batch").await;
    let names = names("m", MEMBERS);
    claims(cluster, &ns, &names).await;
    let kubelet = Kubelet::of(cluster, &ns).await;
    let members: Vec<Value> =
        names.iter().map(|n| json!({ "target": jobs::target("PersistentVolumeClaim", n) })).collect();
    let object = json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "RestoreBatch", "metadata": { "name": "run", "namespace": ns },
        "spec": { "repository": { "name": "repo" }, "executionOrder": "Sequential", "members": members } });
    let sent = create(cluster, &object).await;
    let end = Instant::now() + PATIENCE;
    while cluster.get(&object).await["status"]["phase"] != "Succeeded" {
        assert!(Instant::now() < end, "the batch does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = sent.elapsed();
    let own = took.saturating_sub(kubelet.spent());
    say(
        "ordered batch of 50: overhead a member on top of its Jobs",
        &format!(
            "{} ms ({} s in all, {} s of it Jobs)",
            ms(own / MEMBERS as u32),
            ms(took) / 1e3,
            ms(kubelet.spent()) / 1e3
        ),
    );
}

/// Time from the end of a leader to the first Job of the next leader.
pub async fn leader(cluster: &Cluster) {
    let ns = namespace(cluster, "leader").await;
    let names = names("l", 2);
    claims(cluster, &ns, &names).await;
    let seen = Seen::jobs(cluster, &ns).await;
    for (how, name) in ["SIGTERM", "SIGKILL"].iter().zip(&names) {
        let first = operator().await;
        let second = Operator::start("bench-second", &FLAGS);
        let ready = Instant::now() + Duration::from_secs(10);
        while second.page("/readyz").await.is_none_or(|(code, _)| code != 200) {
            assert!(Instant::now() < ready, "the second replica does not come up");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        let ended = Instant::now();
        if *how == "SIGTERM" {
            first.terminate();
        } else {
            drop(first);
        }
        create(cluster, &session(&ns, name)).await;
        let found = seen.all(std::slice::from_ref(name)).await;
        say(&format!("{how} of the leader -> first Job of the next"), &format!("{} s", ms(found[0] - ended) / 1e3));
    }
}

/// Memory, requests at rest and starts, with more and more sessions whose Jobs wait, each with its pod.
pub async fn scale(cluster: &Arc<Cluster>, sizes: Vec<usize>) {
    let mut running = operator().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    say("resident memory, idle", &format!("{:.1} MB", rss(&running)));
    let ns = namespace(cluster, "scale").await;
    let _pods = Unscheduled::of(cluster, &ns);
    let mut count = 0;
    for size in sizes {
        let seen = Seen::jobs(cluster, &ns).await;
        let names: Vec<String> = names("n", size).split_off(count);
        count = size;
        claims(cluster, &ns, &names).await;
        let begun = Instant::now();
        create_all(cluster, names.iter().map(|n| session(&ns, n)).collect()).await;
        seen.all(&names).await;
        say(&format!("{size} present: all have their Job after"), &format!("{:.1} s", begun.elapsed().as_secs_f64()));
        drop(seen);
        // Time for references of the Repository and other status updates to settle.
        tokio::time::sleep(Duration::from_secs(20)).await;
        let (audit, before) = (Audit::from_now(), cpu(&running));
        tokio::time::sleep(Duration::from_mins(1)).await;
        let used = cpu(&running).saturating_sub(before);
        let rest = audit.requests(None).await;
        say(
            &format!("{size} pending, nothing changes, 60 s: requests"),
            &format!(
                "{}, and {} watches opened again (CPU {:.2} s)",
                rest.total() - rest.of(&["watch"]),
                rest.of(&["watch"]),
                used.as_secs_f64()
            ),
        );
        for ((verb, resource), n) in &rest.0 {
            println!("    {verb:<8} {resource:<32} {n}");
        }
        say(&format!("resident memory, {size} pending, grown to it"), &format!("{:.1} MB", rss(&running)));
        if size == 1000 {
            let peers = [("K8up 2.15", 74.0), ("VolSync 0.16", 279.0), ("Kopiur 0.4.3", 61.0)];
            draw("memory", "resident memory with 1,000 pending restores, MB", rss(&running).round(), &peers);
        }
        let mut took = vec![];
        for round in 0..3 {
            drop(running);
            let name = format!("again-{size}-{round}");
            claims(cluster, &ns, std::slice::from_ref(&name)).await;
            let spawned = Instant::now();
            running = Operator::start("bench", &FLAGS);
            tokio::time::sleep(Duration::from_millis(50)).await;
            let seen = Seen::jobs(cluster, &ns).await;
            create(cluster, &session(&ns, &name)).await;
            took.extend(since(&seen.all(&[name]).await, &[spawned]));
        }
        let [least, most] = [0.0, 1.0].map(|q| ms(quantile(&took, q)) / 1e3);
        say(&format!("start -> Job of a new session, {size} present (3 starts)"), &format!("{least} - {most} s"));
        tokio::time::sleep(Duration::from_secs(10)).await;
        say(&format!("resident memory, {size} pending, after a restart"), &format!("{:.1} MB", rss(&running)));
    }
}
