//! The supervisor: parent of all of a cluster's processes.
//!
//! Started by `up` in the first node's network namespace and in a mount
//! namespace of its own, it enters the cluster's cgroup, starts components in
//! their order, starts them again when they die, reaps every orphan below it,
//! and answers on the control socket. It has one thread only: a component dies
//! with the thread that started it, so this must be the process' main thread.

use std::fs;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, setsid};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::cgroup;
use crate::component::Component;
use crate::components;
use crate::control::{Reply, Request};
use crate::error::{Context, Error, Result};
use crate::layout::Place;
use crate::mounts;
use crate::probe::Prober;
use crate::process::Identity;

/// How often the wanted and the actual state are compared when nothing happens.
const TICK: Duration = Duration::from_millis(50);

struct Supervisor {
    place: Place,
    components: Vec<Component>,
    prober: Prober,
    outcomes: mpsc::UnboundedSender<(usize, Result<()>)>,
    stopping: bool,
}

/// Runs until told to stop.
pub fn run(place: &Place, nodes: u8) -> Result<()> {
    // Detach from the terminal and from the command that started this process.
    setsid().context("cannot leave the session")?;
    prctl::set_child_subreaper(true).context("cannot become a subreaper")?;
    cgroup::enter(place)?;
    mounts::cover(place)?;
    let own = i32::try_from(std::process::id()).ok().and_then(Identity::of);
    own.context("cannot tell own identity")?.write(&place.file("supervisor.json"))?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?
        .block_on(serve(place, nodes))
}

async fn serve(place: &Place, nodes: u8) -> Result<()> {
    let (outcomes, mut results) = mpsc::unbounded_channel();
    let mut supervisor = Supervisor {
        place: place.clone(),
        components: components::all(place, nodes).into_iter().map(Component::new).collect(),
        prober: Prober::new(place)?,
        outcomes,
        stopping: false,
    };
    let listener = UnixListener::bind(place.control_socket())
        .context(format!("cannot listen on {}", place.control_socket().display()))?;
    let hear = |kind: SignalKind| -> Result<Signal> { signal(kind).context("no signal handler") };
    let mut child = hear(SignalKind::child())?;
    let mut terminate = hear(SignalKind::terminate())?;
    let mut interrupt = hear(SignalKind::interrupt())?;
    let mut tick = tokio::time::interval(TICK);
    let (requests, mut asked) = mpsc::channel(8);
    tokio::spawn(accept(listener, requests));

    let mut farewell = None;
    while !supervisor.stopping {
        tokio::select! {
            _ = child.recv() => supervisor.reap(),
            _ = tick.tick() => supervisor.step(),
            _ = terminate.recv() => supervisor.stopping = true,
            _ = interrupt.recv() => supervisor.stopping = true,
            Some((index, outcome)) = results.recv() => {
                if let Some(component) = supervisor.components.get_mut(index) {
                    component.probed(outcome);
                }
                supervisor.step();
            }
            Some((request, stream)) = asked.recv() => {
                let reply = supervisor.answer(&request);
                if supervisor.stopping {
                    farewell = Some((reply, stream));
                } else {
                    tokio::spawn(send(stream, reply));
                }
            }
        }
    }
    supervisor.stop_all().await;
    if let Some((reply, stream)) = farewell {
        send(stream, reply).await;
    }
    Ok(())
}

/// Reads requests. A slow or silent client delays no other client.
async fn accept(listener: UnixListener, requests: mpsc::Sender<(Request, UnixStream)>) {
    while let Ok((stream, _)) = listener.accept().await {
        let requests = requests.clone();
        tokio::spawn(async move {
            let mut reader = BufReader::new(stream);
            let mut line = String::new();
            let read = reader.read_line(&mut line);
            if tokio::time::timeout(Duration::from_secs(5), read).await.is_ok_and(|r| r.is_ok())
                && let Ok(request) = serde_json::from_str(&line)
            {
                let _ = requests.send((request, reader.into_inner())).await;
            }
        });
    }
}

async fn send(mut stream: UnixStream, reply: Reply) {
    let mut line = serde_json::to_string(&reply).unwrap_or_default();
    line.push('\n');
    let _ = stream.write_all(line.as_bytes()).await;
}

impl Supervisor {
    /// Starts components that should run and can, and probes those that run.
    fn step(&mut self) {
        let ready: Vec<String> = self.components.iter().filter(|c| c.was_ready).map(|c| c.spec.name.clone()).collect();
        for (index, component) in self.components.iter_mut().enumerate() {
            component.enforce();
            if component.startable() && component.spec.after.iter().all(|n| ready.contains(n)) {
                match component.start(&self.place) {
                    Ok(()) => say(&format!("{} started", component.spec.name)),
                    Err(e) => component.failed_to_start(e.to_string()),
                }
            }
            let due = !component.probing && Instant::now() >= component.next_probe;
            if due && component.running().is_some() && !component.spec.probes.is_empty() {
                component.probing = true;
                let (asking, outcomes) = (self.prober.clone(), self.outcomes.clone());
                let wanted = component.spec.probes.clone();
                let since = component.started_at;
                tokio::spawn(async move {
                    let outcome = asking.check(&wanted, since).await;
                    let _ = outcomes.send((index, outcome));
                });
            }
        }
    }

    /// Reaps every ended process below this one, components and orphans alike.
    fn reap(&mut self) {
        loop {
            let (pid, how, success) = match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, format!("exit code {code}"), code == 0),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, signal.to_string(), false),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(e) => return say(&format!("cannot wait for children: {e}")),
            };
            if let Some(component) = self.components.iter_mut().find(|c| c.running() == Some(pid)) {
                say(&format!("{} ended: {how}", component.spec.name));
                component.ended(&how, success);
            }
        }
    }

    fn answer(&mut self, request: &Request) -> Reply {
        let mut error = None;
        match request {
            Request::Status => {}
            Request::Shutdown => self.stopping = true,
            Request::Component { name, action } => match self.find(name) {
                Ok(component) => {
                    say(&format!("{} asked to {action:?}", component.spec.name));
                    component.act(*action);
                }
                Err(e) => error = Some(e.to_string()),
            },
        }
        if !self.stopping {
            self.step();
        }
        Reply { error, components: self.components.iter().map(Component::status).collect() }
    }

    /// Finds a component by name; `kubelet` means `kubelet-1`, `kube-apiserver` means `apiserver`.
    fn find(&mut self, name: &str) -> Result<&mut Component> {
        let name = name.strip_prefix("kube-").unwrap_or(name);
        let first = format!("{name}-1");
        let names: Vec<&str> = self.components.iter().map(|c| c.spec.name.as_str()).collect();
        let unknown = format!("no component {name:?}; there are: {}", names.join(", "));
        self.components
            .iter_mut()
            .find(|c| c.spec.name == name || c.spec.name == first)
            .ok_or_else(|| Error::new(unknown))
    }

    /// Kills every process of the cluster except this one, containers included.
    /// Only etcd is first asked to stop: its data may be needed again.
    async fn stop_all(&mut self) {
        say("stopping");
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        let etcd = self.components.iter().find(|c| c.spec.name == "etcd").and_then(Component::running);
        let deadline = Instant::now() + Duration::from_secs(15);
        let polite = Instant::now() + Duration::from_secs(2);
        if let Some(pid) = etcd {
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
        loop {
            while let Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) =
                waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG))
            {}
            let left: Vec<i32> =
                cgroup::processes(&self.place).unwrap_or_default().into_iter().filter(|pid| *pid != own).collect();
            if left.is_empty() || Instant::now() > deadline {
                break;
            }
            for pid in left {
                if etcd.map(Pid::as_raw) != Some(pid) || Instant::now() > polite {
                    let _ = nix::sys::signal::kill(Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let _ = fs::remove_file(self.place.control_socket());
        say("stopped");
    }
}

/// Writes a line to the supervisor's log, which is its standard error.
fn say(text: &str) {
    eprintln!("{} {text}", jiff::Timestamp::now());
}
