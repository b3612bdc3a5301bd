//! The REST API with `verify_client: required`: switched on while everything runs, and what failsafe mode makes of it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::Full;
use pgherd::http_client::{HttpAnswer, HttpClient};
use pgherd::tls::{Checks, ClientSettings, Trust};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustix::process::Signal;

use super::listeners::{self, take_the_votes};
use crate::harness::cluster::{BRING_UP_LIMIT, Cluster, HEAL_LIMIT};
use crate::harness::ledger::Route;
use crate::harness::node::Kind;
use crate::harness::ports::Place;
use crate::harness::workload::{Session, Workload};
use crate::harness::{clock, rest, wait};
use crate::run;

/// The most bytes of an answer.
const MAX_ANSWER: usize = 1024 * 1024;
/// A node that does not answer within this time is treated as not answering.
const PATIENCE: Duration = Duration::from_secs(5);

/// A certificate's file, its key's and its CA's.
struct Files {
    certfile: PathBuf,
    keyfile: PathBuf,
    cafile: PathBuf,
}

impl Files {
    /// A CA of this name with one certificate for everything.
    fn new(cluster: &Cluster, name: &str) -> Result<Self> {
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(rcgen::DnType::CommonName, name);
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.subject_alt_names.push(SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()));
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &ca)?;
        let write = |kind: &str, text: String| -> Result<PathBuf> {
            let path = cluster.directory().join(format!("{name}.{kind}"));
            std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
            Ok(path)
        };
        Ok(Self {
            certfile: write("crt", certificate.pem())?,
            keyfile: write("key", key.serialize_pem())?,
            cafile: write("ca.crt", ca.pem())?,
        })
    }

    fn client(&self, has_certificate: bool) -> HttpClient {
        let own = |path: &PathBuf| has_certificate.then(|| path.clone());
        let settings = ClientSettings {
            checks: Checks::All,
            trust: Trust::File(self.cafile.clone()),
            certfile: own(&self.certfile),
            keyfile: own(&self.keyfile),
            ..ClientSettings::default()
        };
        HttpClient::new(settings, None)
    }

    /// Of `ctl`, with the CA of the others.
    fn ctl(&self, cafile: &std::path::Path) -> String {
        format!(
            "ctl:\n  certfile: {}\n  keyfile: {}\n  cacert: {}\n",
            self.certfile.display(),
            self.keyfile.display(),
            cafile.display()
        )
    }
}

/// The file of a node which speaks TLS with clients that show a certificate.
fn with_tls(plain: &str, server: &Files, client: &Files) -> String {
    let section = format!(
        "restapi:\n  certfile: {}\n  keyfile: {}\n  cafile: {}\n  verify_client: required\n",
        server.certfile.display(),
        server.keyfile.display(),
        server.cafile.display()
    );
    plain.replacen("restapi:\n", &section, 1) + &client.ctl(&server.cafile)
}

async fn ask(client: &HttpClient, at: Place, path: &str) -> Result<HttpAnswer> {
    let request =
        hyper::Request::builder().uri(format!("https://{at}{path}")).body(Full::new(Bytes::new()))?;
    let answer = tokio::time::timeout(PATIENCE, client.send(request, MAX_ANSWER)).await;
    Ok(answer.context("no answer in time")??)
}

async fn wait_for(client: &HttpClient, at: Place, path: &str, has: &str) -> Result<()> {
    wait::until("an answer over TLS", HEAL_LIMIT, async || {
        let answer = ask(client, at, path).await.map_err(|error| format!("{error:#}"))?;
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        if body.contains(has) { Ok(()) } else { Err(body) }
    })
    .await
}

fn reload(cluster: &Cluster, index: usize, text: &str) -> Result<()> {
    let node = cluster.node(index)?;
    node.write_config(text)?;
    node.signal_daemon(Signal::HUP)
}

/// Data nodes without a vote, so that a suspended witness is the loss of the majority.
#[test]
fn failsafe_mode_works_over_mutual_tls_and_only_for_who_has_the_certificate() {
    let plan = listeners::plan().map(|plan| plan.with_settings(&["failsafe_mode: true"]));
    run(plan, async |cluster| {
        take_the_votes(cluster)?;
        cluster.start_all()?;
        let primary = cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        let standby = 1 - primary;
        let mut workload = Workload::watched(cluster, None).await?;
        let (ours, others) = (Files::new(cluster, "ours")?, Files::new(cluster, "others")?);
        let plain = [cluster.node(0)?.read_config()?, cluster.node(1)?.read_config()?];
        let places = [cluster.node(0)?.ports.rest_at(), cluster.node(1)?.ports.rest_at()];
        for (index, text) in plain.iter().enumerate() {
            reload(cluster, index, &with_tls(text, &ours, &ours))?;
        }
        let known = ours.client(true);
        for at in places {
            // The others learn the scheme of its address, too.
            let (one, two) =
                (format!("https://{}/patroni", places[0]), format!("https://{}/patroni", places[1]));
            wait_for(&known, at, "/failsafe", &one).await?;
            wait_for(&known, at, "/failsafe", &two).await?;
            ensure!(
                ask(&ours.client(false), at, "/primary").await.is_err(),
                "answered without a certificate"
            );
            let stranger = others.client(true);
            ensure!(ask(&stranger, at, "/primary").await.is_err(), "answered to a stranger");
            ensure!(rest::get(at, "/primary").await.is_err(), "answered without encryption");
        }
        let failures = workload.ledger.failures(Route::Direct);
        let session = Session::open_patiently(cluster.node(primary)?.ports.postgresql_at()).await?;
        let witness = cluster.nodes.iter().position(|node| node.kind == Kind::Witness).context("one")?;
        cluster.node(witness)?.signal_daemon(Signal::STOP)?;
        for at in places {
            wait_for(&known, at, "/patroni", "\"failsafe_mode_is_active\":true").await?;
        }
        workload.wait_until_writing(clock::now() + Duration::from_secs(15), HEAL_LIMIT).await?;
        ensure!(workload.ledger.failures(Route::Direct) == failures, "a client's connection or write failed");
        ensure!(ask(&known, places[primary], "/primary").await?.status == 200);
        // With a certificate that the standby does not believe the primary hears no promise any more.
        reload(cluster, primary, &with_tls(&plain[primary], &ours, &others))?;
        wait::until_true("the end of PostgreSQL", HEAL_LIMIT, async || {
            session.client.simple_query("SELECT 1").await.is_err()
        })
        .await?;
        // Back to what was, without a restart of any daemon.
        cluster.node(witness)?.signal_daemon(Signal::CONT)?;
        for index in [primary, standby] {
            reload(cluster, index, &plain[index])?;
        }
        cluster.wait_until_whole(HEAL_LIMIT).await?;
        workload.wait_until_writing(clock::now(), HEAL_LIMIT).await?;
        workload.finish().await?;
        Ok(())
    });
}
