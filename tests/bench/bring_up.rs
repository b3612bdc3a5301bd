//! How long a cluster takes to come up.

use anyhow::Result;

use crate::figures;
use crate::harness::clock;
use crate::harness::cluster::{Cluster, Plan};

pub(crate) async fn run(repeat: usize) -> Result<()> {
    let mut samples = Vec::new();
    for _ in 0..repeat {
        let begin = clock::now();
        let cluster = Cluster::start(&Plan::of(3)?).await?;
        samples.push(begin.elapsed());
        drop(cluster);
    }
    figures::print("bring-up of three nodes", &samples);
    Ok(())
}
