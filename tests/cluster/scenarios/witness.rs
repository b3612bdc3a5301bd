//! Two data nodes and a witness.

use anyhow::ensure;

use crate::harness::cluster::{BRING_UP_LIMIT, Plan};
use crate::harness::story;
use crate::harness::workload::Workload;
use crate::run;

#[test]
fn with_a_witness_two_nodes_survive_the_loss_of_one() {
    run(Plan::of(2).map(Plan::with_witness), async |cluster| {
        cluster.start_all()?;
        cluster.wait_until_whole(BRING_UP_LIMIT).await?;
        let mut workload = Workload::watched(cluster, None).await?;
        let (_, old) = story::lose_primary(cluster, &workload).await?;
        let back = story::return_node(cluster, &workload, old).await?;
        ensure!(back.lost == 0, "{} acknowledged writes were lost when the old node came back", back.lost);
        workload.finish().await?;
        Ok(())
    });
}
