//! What is written, where it is seen, and what happens to it when nodes are cut off.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use tokio::time::Instant;

use super::super::{BarrierError, MAX_COMMAND, MembershipError, ProposeError, Role, ServeError};
use super::cluster::{Cluster, commands, lost, node, propose, until, write};
use crate::blob::FetchError;
use crate::store::MemoryStore;

/// Kind of the requests to install a snapshot.
const INSTALL: u8 = 2;

#[tokio::test(start_paused = true)]
async fn a_write_on_the_leader_is_seen_on_all_nodes() {
    let cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    write(&leader, "one").await;
    leader.barrier().await.unwrap();
    cluster.level(&leader).await;
    assert_eq!(cluster.assert_one_history().len(), 1);

    let follower = cluster.nodes.iter().find(|node| node.me() != leader.me()).unwrap();
    assert_eq!(propose(follower, "two").await, Err(ProposeError::NotLeader(Some(leader.me()))));
    assert_eq!(follower.barrier().await, Err(BarrierError::NotLeader(Some(leader.me()))));
    let large = Bytes::from(vec![0; MAX_COMMAND + 1]);
    assert_eq!(leader.propose(large).await, Err(ProposeError::TooLarge { size: MAX_COMMAND + 1 }));
}

#[tokio::test(start_paused = true)]
async fn commands_that_wait_share_entries_and_get_their_own_replies() {
    let cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    join_all((0..100).map(async |client| {
        for number in 0..10 {
            write(&leader, &format!("{client} {number}")).await;
        }
    }))
    .await;
    cluster.level(&leader).await;
    let history = cluster.assert_one_history();
    let entries: BTreeSet<u64> = history.iter().map(|(index, _)| *index).collect();
    assert!(entries.len() <= 40, "{} entries for 1000 commands", entries.len());
    for client in 0..100 {
        let prefix = format!("{client} ");
        let own = history.iter().filter_map(|(_, text)| text.strip_prefix(&prefix));
        assert!(own.eq((0..10).map(|number| number.to_string())), "the order of client {client}");
    }
}

#[tokio::test(start_paused = true)]
async fn large_commands_are_split_over_entries() {
    let cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    let texts: Vec<String> = ["a", "b", "c", "d", "e"].iter().map(|letter| letter.repeat(100_000)).collect();
    join_all(texts.iter().map(|text| write(&leader, text))).await;
    cluster.level(&leader).await;
    let history = cluster.assert_one_history();
    assert!(history.iter().map(|(_, text)| text).eq(texts.iter()));
    assert!(history.iter().map(|(index, _)| *index).collect::<BTreeSet<_>>().len() >= 3);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_refuses_and_another_takes_over() {
    let cluster = Cluster::of_three().await;
    let old = cluster.leader().await;
    write(&old, "before").await;
    cluster.wires.cut(old.me());

    let start = Instant::now();
    assert_eq!(propose(&old, "lost or not").await, Err(ProposeError::Unknown));
    assert!(start.elapsed() <= Duration::from_secs(3));
    let start = Instant::now();
    assert_eq!(propose(&old, "refused").await, Err(ProposeError::NoQuorum));
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(old.barrier().await, Err(BarrierError::NoQuorum));

    let new = cluster.leader_but(&[old.me()]).await;
    write(&new, "after").await;
    cluster.wires.heal();
    until(&old, |status| status.leader == Some(new.me())).await;
    assert_eq!(propose(&old, "to the wrong one").await, Err(ProposeError::NotLeader(Some(new.me()))));
    write(&new, "healed").await;
    cluster.level(&new).await;
    let history = cluster.assert_one_history();
    assert_eq!(history.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), ["before", "after", "healed"]);
}

#[tokio::test(start_paused = true)]
async fn a_command_cut_off_by_a_younger_leader_has_no_known_outcome() {
    let mut cluster = Cluster::new();
    cluster.config.commit_limit = Duration::from_mins(1);
    let cluster = cluster.founded(3).await;
    let old = cluster.leader().await;
    cluster.wires.cut(old.me());
    let doomed = propose(&old, "doomed");
    let heal = async {
        let new = cluster.leader_but(&[old.me()]).await;
        write(&new, "instead").await;
        cluster.wires.heal();
    };
    let start = Instant::now();
    let (outcome, ()) = tokio::join!(doomed, heal);
    assert_eq!(outcome, Err(ProposeError::Unknown));
    assert!(start.elapsed() < Duration::from_mins(1), "it is said when the entry is cut off");
}

/// Returns where the parts of it began, in their order; the first fetch ends after one of them.
async fn a_node_that_lags_gets_a_snapshot(lazy: bool, dirs: bool, ends: FetchError) -> Vec<u64> {
    let mut cluster = Cluster::new();
    let dir = dirs.then(|| tempfile::tempdir().unwrap());
    cluster.lazy = lazy;
    cluster.config.snapshot_after = 20;
    cluster.config.keep = 5;
    for number in 1..=3 {
        let dir = dir.as_ref().map(|dir| dir.path().join(number.to_string()));
        cluster.add(Arc::new(MemoryStore::default()), dir).await;
    }
    cluster.nodes[0].initialize(&[node(1), node(2), node(3)]).await.unwrap();
    let leader = cluster.leader().await;
    let lagging = cluster.nodes.iter().find(|node| node.me() != leader.me()).unwrap();
    write(&leader, "seen by all").await;
    cluster.level(&leader).await;
    cluster.wires.cut(lagging.me());
    // More than one part of a file, so that it is put together again.
    for number in 0..60 {
        write(&leader, &format!("{number} {}", "x".repeat(200_000))).await;
    }
    *cluster.wires.fetch_ends.lock() = Some((1, ends));
    // Its log begins after what the lagging node has.
    until(&leader, |status| status.snapshot > Some(15)).await;
    assert_eq!(commands(&lagging.state()).len(), 1);
    assert_eq!(cluster.wires.brought.lock().get(&INSTALL), None);
    cluster.wires.heal();
    let leader = cluster.leader().await;
    write(&leader, "the last").await;
    cluster.level(&leader).await;
    assert!(cluster.wires.brought.lock().get(&INSTALL).is_some_and(|asked| *asked > 1));
    assert!(cluster.wires.fetch_ends.lock().is_none());
    assert_eq!(cluster.assert_one_history().len(), 62);
    cluster.wires.fetched.lock().clone()
}

#[tokio::test(start_paused = true)]
async fn a_node_that_lags_gets_a_snapshot_read_at_once() {
    let parts = a_node_that_lags_gets_a_snapshot(false, false, lost()).await;
    assert!(parts.len() > 1 && parts.is_sorted_by(|one, next| one < next), "no part comes twice: {parts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_lags_gets_a_snapshot_read_lazily() {
    let parts = a_node_that_lags_gets_a_snapshot(true, false, lost()).await;
    assert!(parts.len() > 1 && parts.is_sorted_by(|one, next| one < next), "no part comes twice: {parts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_lags_gets_a_snapshot_from_a_file() {
    let parts = a_node_that_lags_gets_a_snapshot(true, true, lost()).await;
    assert!(parts.len() > 1 && parts.is_sorted_by(|one, next| one < next), "no part comes twice: {parts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_offered_no_more_is_begun_anew() {
    for dirs in [false, true] {
        let parts = a_node_that_lags_gets_a_snapshot(true, dirs, FetchError::NotThere).await;
        assert_eq!(parts.iter().filter(|offset| **offset == 0).count(), 2, "{parts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn members_come_and_go() {
    let mut cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    write(&leader, "before").await;
    cluster.add(Arc::new(MemoryStore::default()), None).await;
    leader.add_learner(node(4)).await.unwrap();
    assert_eq!(leader.status().learners, [node(4)]);
    let last = leader.status().last;
    until(&leader, |status| status.matched.get(&4) == Some(&last)).await;
    cluster.level(&leader).await;
    assert_eq!(until(&cluster.nodes[3], |status| status.leader.is_some()).await.role, Role::Learner);

    let gone = (1..=3).map(node).find(|node| *node != leader.me()).unwrap();
    let voters: Vec<_> = (1..=4).map(node).filter(|node| *node != gone).collect();
    leader.set_voters(&voters).await.unwrap();
    assert_eq!((leader.status().voters, leader.status().learners), (voters.clone(), vec![gone]));
    leader.remove(gone).await.unwrap();
    leader.remove(gone).await.unwrap();
    assert_eq!(leader.status().learners, []);
    write(&leader, "after").await;
    until(&cluster.nodes[3], |status| status.applied >= leader.status().applied).await;
    assert_eq!(commands(&cluster.nodes[3].state()), commands(&leader.state()));

    assert!(matches!(leader.set_voters(&[node(9)]).await, Err(MembershipError::Refused(_))));
    let follower = cluster.nodes.iter().find(|node| node.me() != leader.me()).unwrap();
    assert!(matches!(follower.add_learner(node(9)).await, Err(MembershipError::NotLeader(_))));
}

#[tokio::test(start_paused = true)]
async fn founding_twice_does_nothing() {
    let cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    leader.initialize(&[node(1), node(2), node(3)]).await.unwrap();
    assert_eq!(leader.status().voters.len(), 3);
    let mut stranger = Cluster::new();
    let group = stranger.add(Arc::new(MemoryStore::default()), None).await;
    assert!(matches!(group.initialize(&[node(7)]).await, Err(MembershipError::Refused(_))));
}

#[tokio::test(start_paused = true)]
async fn nobody_speaks_for_another_node() {
    let cluster = Cluster::of_three().await;
    let vote = openraft::Vote::new(99, 2);
    let request = super::super::network::Request::Vote(openraft::raft::VoteRequest::new(vote, None));
    let body = Bytes::from(super::super::encode(&request));
    let refused = cluster.nodes[0].serve(node(3), body).await;
    assert!(matches!(refused, Err(ServeError::Forged { from, claimed }) if from == node(3) && claimed == node(2)));
    let refused = cluster.nodes[0].serve(node(3), Bytes::from_static(&[250, 1, 2])).await;
    assert!(matches!(refused, Err(ServeError::Malformed(_))));
}

#[tokio::test(start_paused = true)]
async fn a_stopped_group_says_so() {
    let cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    leader.shutdown().await;
    assert_eq!(propose(&leader, "late").await, Err(ProposeError::Stopped));
    assert_eq!(leader.barrier().await, Err(BarrierError::Stopped));
    assert!(matches!(leader.add_learner(node(4)).await, Err(MembershipError::Stopped)));
}
