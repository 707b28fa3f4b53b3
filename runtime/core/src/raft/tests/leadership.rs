//! Leadership that moves on purpose.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use super::super::{Group, HandOffError, ProposeError, Role};
use super::cluster::{Cluster, node, propose, until, write};

const LEASE: Duration = Duration::from_millis(2100);

/// Writes to whoever leads. Only outcomes that are certain are tried again.
async fn write_somewhere(cluster: &Cluster, command: &str) {
    let mut to = cluster.nodes[0].clone();
    loop {
        match propose(&to, command).await {
            Ok(_) => return,
            Err(ProposeError::NotLeader(Some(leader))) => {
                to = cluster.nodes[usize::try_from(leader.0).unwrap() - 1].clone();
            }
            Err(ProposeError::NotLeader(None)) => {
                until(&to, |status| status.leader.is_some()).await;
            }
            Err(error) => panic!("{command}: {error}"),
        }
    }
}

fn other_than(cluster: &Cluster, leader: &Group) -> Group {
    cluster.nodes.iter().find(|node| node.me() != leader.me()).unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn a_hand_off_under_load_loses_and_repeats_nothing() {
    let cluster = Cluster::of_three().await;
    tokio::time::sleep(LEASE).await;
    let old = cluster.leader().await;
    let successor = other_than(&cluster, &old);
    let writers = join_all((0..8).map(async |writer| {
        for number in 0..50 {
            write_somewhere(&cluster, &format!("{writer}.{number}")).await;
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }));
    let moves = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        old.hand_off(successor.me()).await.unwrap();
    };
    tokio::join!(writers, moves);
    let leader = cluster.leader().await;
    assert_eq!(leader.me(), successor.me());
    cluster.level(&leader).await;
    let history = cluster.assert_one_history();
    let distinct: BTreeSet<&String> = history.iter().map(|(_, text)| text).collect();
    assert_eq!((history.len(), distinct.len()), (400, 400));
}

#[tokio::test(start_paused = true)]
async fn a_hand_off_that_cannot_succeed_changes_nothing() {
    let cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    let term = leader.status().term;
    let successor = other_than(&cluster, &leader).me();
    assert!(matches!(leader.hand_off(successor).await, Err(HandOffError::TooYoung { .. })));
    tokio::time::sleep(LEASE).await;
    assert_eq!(leader.hand_off(leader.me()).await, Err(HandOffError::NotVoter));
    assert_eq!(leader.hand_off(node(9)).await, Err(HandOffError::NotVoter));
    let follower = other_than(&cluster, &leader);
    assert_eq!(follower.hand_off(leader.me()).await, Err(HandOffError::NotLeader(Some(leader.me()))));

    cluster.wires.cut(successor);
    write(&leader, "not seen by the successor").await;
    assert_eq!(leader.hand_off(successor).await, Err(HandOffError::Lagging));
    write(&leader, "still in office").await;
    assert_eq!((leader.status().term, leader.status().role), (term, Role::Leader));
}

#[tokio::test(start_paused = true)]
async fn a_leader_of_five_falls_silent_before_it_hands_off() {
    let cluster = Cluster::new().founded(5).await;
    tokio::time::sleep(LEASE).await;
    let old = cluster.leader().await;
    let successor = other_than(&cluster, &old);
    assert_eq!(old.hand_off(successor.me()).await, Err(HandOffError::TooManyVoters(5)));
    write(&old, "before").await;
    let start = Instant::now();
    let writes = async {
        let mut longest = Duration::ZERO;
        for number in 0..100 {
            let began = Instant::now();
            write_somewhere(&cluster, &format!("{number}")).await;
            longest = longest.max(began.elapsed());
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        longest
    };
    // As the watch over the members does.
    let proofs = async {
        while start.elapsed() < Duration::from_secs(3) {
            let _ = old.barrier().await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    let (resigned, longest, ()) = tokio::join!(old.resign(successor.me()), writes, proofs);
    assert_eq!(resigned, Ok(()));
    let leader = cluster.leader().await;
    assert_eq!(leader.me(), successor.me());
    assert!(longest < Duration::from_millis(2500), "a write waited for {longest:?}");
    cluster.level(&leader).await;
    assert_eq!(cluster.assert_one_history().len(), 101);
    // It may lead again one day, and is heard then.
    tokio::time::sleep(LEASE).await;
    assert_eq!(leader.resign(old.me()).await, Ok(()));
    let term = cluster.leader().await.status().term;
    tokio::time::sleep(4 * LEASE).await;
    assert_eq!((cluster.leader().await.me(), old.status().term), (old.me(), term));
}

#[tokio::test(start_paused = true)]
async fn a_leader_of_five_whose_successor_is_gone_stays_in_office() {
    let cluster = Cluster::new().founded(5).await;
    tokio::time::sleep(LEASE).await;
    let leader = cluster.leader().await;
    let (term, successor) = (leader.status().term, other_than(&cluster, &leader).me());
    write(&leader, "before").await;
    cluster.level(&leader).await;
    cluster.wires.cut(successor);
    write(&leader, "not seen by the successor").await;
    let start = Instant::now();
    assert_eq!(leader.resign(successor).await, Err(HandOffError::Lagging));
    assert!(start.elapsed() < Duration::from_secs(1), "it was silent for nothing");
    cluster.wires.heal();
    cluster.level(&leader).await;
    // The others still hear of the leader by another way, so the successor would not be elected.
    let (refused, ()) = tokio::join!(leader.resign(successor), async {
        tokio::time::sleep(LEASE).await;
        leader.inner.raft.trigger().heartbeat().await.unwrap();
    });
    assert!(matches!(refused, Err(HandOffError::Refused(_))), "{refused:?}");
    write(&leader, "still in office").await;
    tokio::time::sleep(4 * LEASE).await;
    assert_eq!((leader.status().term, leader.status().role), (term, Role::Leader));
}

#[tokio::test(start_paused = true)]
async fn commands_wait_for_a_hand_off() {
    let cluster = Cluster::of_three().await;
    tokio::time::sleep(LEASE).await;
    let leader = cluster.leader().await;
    let successor = other_than(&cluster, &leader).me();
    cluster.wires.cut(successor);
    // The successor's answer never comes, so the hold lasts as long as it may.
    write(&leader, "before").await;
    let start = Instant::now();
    let held = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        write(&leader, "held").await;
        start.elapsed()
    };
    let (refused, waited) = tokio::join!(leader.hand_off(successor), held);
    assert_eq!(refused, Err(HandOffError::Lagging));
    assert!(waited >= Duration::from_millis(500), "written after {waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_leader_known_to_be_gone_is_replaced_after_its_lease() {
    let cluster = Cluster::of_three().await;
    tokio::time::sleep(LEASE).await;
    let old = cluster.leader().await;
    write(&old, "before").await;
    cluster.level(&old).await;
    let next = other_than(&cluster, &old);
    assert!(!next.elect_if_current(node(9)).await);
    assert!(!next.elect_if_current(old.me()).await, "the leader is still heard of");
    assert_eq!(cluster.leader().await.me(), old.me());

    cluster.wires.cut(old.me());
    let start = Instant::now();
    assert!(next.elect_if_current(old.me()).await);
    assert_eq!(cluster.leader_but(&[old.me()]).await.me(), next.me());
    assert!(start.elapsed() < Duration::from_millis(2200), "after {:?}", start.elapsed());
    write(&next, "after").await;
}
