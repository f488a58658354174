package broker

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"shardstream/broker/member"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// How a cluster is formed, exactly once. The rules, apart from their network:
//
//   - N nodes that never had a cluster agree on one list, the N smallest node
//     ids that gossip shows. The smallest is the list's founder.
//   - A node is bound to at most one list at a time, durably. The founder binds
//     itself first, and forms the cluster only when all on the list have told it,
//     in this process, that they are bound to it and have no cluster.
//   - Only the founder of a list can form its cluster. So it may leave its own
//     list as long as it hasn't, and that list is void for ever: its cluster id
//     is never used again. The others are set free when the founder itself, on
//     the disk that the list names, tells them so; hearsay frees nobody.
//   - A node that sees a cluster joins it. One that ever had one forms none.
//
// So two clusters can't come out of nodes that are on both lists, whoever
// crashes when; and lists that cross, since the nodes saw different members,
// give way to that of the smallest founder.

// promise binds a node to a founding list.
type promise struct {
	ClusterID string        // chosen by the founder
	Founders  []*pb.Founder // by node id; the first founds
}

func (p *promise) founder() *pb.Founder { return p.Founders[0] }

func (p *promise) member(id stream.NodeID) *pb.Founder {
	for _, f := range p.Founders {
		if f.NodeId == string(id) {
			return f
		}
	}
	return nil
}

// voters gives those that vote in raft from the start: 3, from 5 nodes on 5;
// fewer if there are no more. The rest of the list joins afterwards.
func (p *promise) voters() []*pb.Founder {
	n := len(p.Founders)
	switch {
	case n >= 5:
		n = 5
	case n > 3:
		n = 3
	}
	return p.Founders[:n]
}

func (p *promise) votes(id stream.NodeID) bool {
	return slices.ContainsFunc(p.voters(), func(f *pb.Founder) bool { return f.NodeId == string(id) })
}

// valid says what is wrong with a list, nil if it is one.
func (p *promise) valid() error {
	if p.ClusterID == "" || len(p.Founders) == 0 {
		return fmt.Errorf("a founding list has a cluster id and nodes")
	}
	for i, f := range p.Founders {
		switch {
		case f.GetNodeId() == "" || f.GetDiskId() == "" || f.GetRaftAddress() == "":
			return fmt.Errorf("entry %d of the founding list is incomplete: %v", i+1, f)
		case i > 0 && p.Founders[i-1].NodeId >= f.NodeId:
			return fmt.Errorf("the founding list is not sorted by node id")
		}
	}
	return nil
}

// formView is what a node knows when it decides its next step.
type formView struct {
	self    member.Facts
	cluster string          // the node's cluster, if it ever had one
	state   bool            // there is raft state on its disk
	promise *promise        // nil: bound to no list
	members []member.Member // by node id; with this node or without
	sought  bool            // all seeds have been tried once
	settled bool            // the members have been the same for a moment
}

type formAction int

const (
	formWait    formAction = iota // nothing to do until something changes
	formResume                    // raft's state says all
	formJoin                      // ask the cluster's leader for admission
	formListed                    // be there as a voter; the leader comes by itself
	formFound                     // get the promises of the list, then form the cluster
	formAbandon                   // leave the own list for ever
	formAwait                     // wait for the founder, and ask whether it still wants to
	formBroken                    // stop: an operator is needed
)

// formStep is a decision, with the reason for people.
type formStep struct {
	action  formAction
	cluster string        // join, listed
	list    []*pb.Founder // found, without a promise yet
	why     string
}

// nextStep decides. It looks at nothing but v.
func nextStep(v formView) formStep {
	formed, conflict := clustersSeen(v.members)
	switch {
	case v.state:
		return formStep{action: formResume}
	case v.cluster != "" && v.promise != nil && v.promise.ClusterID == v.cluster:
		return v.stepOfFounded()
	case v.cluster != "":
		return formStep{action: formJoin, cluster: v.cluster, why: "joining cluster " + v.cluster}
	case conflict != "":
		return formStep{why: conflict}
	case v.promise != nil:
		return v.stepOfBound(formed)
	case formed != "":
		return formStep{action: formJoin, cluster: formed, why: "joining cluster " + formed}
	}
	return v.stepOfFree()
}

// stepOfFounded is for a node whose list was founded, and that has got nothing
// from raft yet.
func (v formView) stepOfFounded() formStep {
	switch {
	case v.promise.founder().NodeId == string(v.self.NodeID):
		// The founder has raft state before it has the cluster id.
		return formStep{action: formBroken, why: fmt.Sprintf("this node founded cluster %s, but its raft/ is empty: restore the data directory, or empty it wholly so that the node joins as a new one", v.cluster)}
	case v.promise.votes(v.self.NodeID):
		return formStep{action: formListed, cluster: v.cluster}
	}
	return formStep{action: formJoin, cluster: v.cluster, why: "joining cluster " + v.cluster}
}

// stepOfBound is for a node with a promise and no cluster.
func (v formView) stepOfBound(formed string) formStep {
	p := v.promise
	mine := p.founder().NodeId == string(v.self.NodeID)
	switch {
	case mine && formed == p.ClusterID:
		return formStep{action: formBroken, why: fmt.Sprintf("cluster %s was founded by this node, but its raft/ is empty: restore the data directory, or empty it wholly so that the node joins as a new one", formed)}
	case mine && formed != "":
		return formStep{action: formAbandon, why: "a cluster exists already: " + formed}
	case mine:
		for _, m := range v.members {
			f := p.member(m.NodeID)
			switch {
			case m.State != member.Alive:
			case f != nil && m.DiskID != f.DiskId:
				return formStep{action: formAbandon, why: fmt.Sprintf("node %s has come back with another disk", m.NodeID)}
			case m.Founding != "" && m.Founding != p.ClusterID && m.Founder < v.self.NodeID:
				// The lists may share nodes without either founder being on the
				// other's: one of them must give way, and this is always safe.
				return formStep{action: formAbandon, why: fmt.Sprintf("node %s founds a cluster already", m.Founder)}
			}
		}
		return formStep{action: formFound, why: "founding a cluster of " + names(p.Founders)}
	case formed == p.ClusterID:
		if p.votes(v.self.NodeID) {
			return formStep{action: formListed, cluster: formed}
		}
		return formStep{action: formJoin, cluster: formed, why: "joining cluster " + formed}
	}
	return formStep{action: formAwait, why: fmt.Sprintf("waiting for node %s to found the cluster of %s", p.founder().NodeId, names(p.Founders))}
}

// stepOfFree is for a node with neither cluster nor promise, that sees no cluster.
func (v formView) stepOfFree() formStep {
	n := v.self.Expect
	if n == 0 {
		return formStep{why: "looking for a cluster to join: no node that --join leads to has one yet (to form a new one, give --bootstrap-expect)"}
	}
	candidates := []*pb.Founder{{NodeId: string(v.self.NodeID), DiskId: v.self.DiskID, RaftAddress: v.self.Raft}}
	for _, m := range v.members {
		if m.State != member.Alive || m.NodeID == v.self.NodeID {
			continue
		}
		if m.Founding != "" {
			return formStep{why: fmt.Sprintf("node %s is about to found a cluster with others", m.NodeID)}
		}
		switch m.Expect {
		case n:
			candidates = append(candidates, &pb.Founder{NodeId: string(m.NodeID), DiskId: m.DiskID, RaftAddress: m.Raft})
		case 0: // it only joins
		default:
			return formStep{why: fmt.Sprintf("node %s has --bootstrap-expect %d, this node has %d: give all nodes the same", m.NodeID, m.Expect, n)}
		}
	}
	slices.SortFunc(candidates, func(a, b *pb.Founder) int { return cmp.Compare(a.NodeId, b.NodeId) })
	if len(candidates) < n {
		return formStep{why: fmt.Sprintf("%d of %d nodes are here to form a cluster: %s", len(candidates), n, names(candidates))}
	}
	list := candidates[:n]
	switch {
	case list[0].NodeId != string(v.self.NodeID):
		return formStep{why: fmt.Sprintf("waiting for node %s to found the cluster of %s", list[0].NodeId, names(list))}
	case !v.sought || !v.settled:
		return formStep{why: "looking around before founding a cluster"}
	}
	return formStep{action: formFound, list: list, why: "founding a cluster of " + names(list)}
}

// clustersSeen gives the one cluster that living members have, "" if none; or
// the operator's line if they have several.
func clustersSeen(members []member.Member) (cluster, conflict string) {
	var first member.Member
	for _, m := range members {
		switch {
		case m.State != member.Alive || m.ClusterID == "":
		case first.ClusterID == "":
			first = m
		case m.ClusterID != first.ClusterID:
			return "", fmt.Sprintf("--join leads to two clusters: node %s has %s, node %s has %s; name only nodes of one", first.NodeID, first.ClusterID, m.NodeID, m.ClusterID)
		}
	}
	return first.ClusterID, ""
}

// answerTo decides what a node answers to a founder's request. keep is what it
// must be bound to, durably, before it answers; nil leaves it as it is.
func answerTo(v formView, sealed bool, asked *promise) (answer *pb.PromiseResponse, keep *promise, err error) {
	const op = "broker.Promise"
	no := func(format string, args ...any) (*pb.PromiseResponse, *promise, error) {
		return &pb.PromiseResponse{Detail: fmt.Sprintf(format, args...)}, nil, nil
	}
	yes := &pb.PromiseResponse{Promised: true}
	if err := asked.valid(); err != nil {
		return nil, nil, stream.Errorf(stream.Invalid, op, "%w", err)
	}
	me := asked.member(v.self.NodeID)
	if me == nil || me.DiskId != v.self.DiskID {
		// Not a no: what the other disk has promised, this one doesn't know.
		return nil, nil, stream.Errorf(stream.Stale, op, "node %s with disk %s is not on the list", v.self.NodeID, v.self.DiskID)
	}
	bound := v.promise != nil && v.promise.ClusterID == asked.ClusterID
	if asked.founder().NodeId == string(v.self.NodeID) {
		// One of the list asks whether its founder still wants to, or did.
		if bound || v.cluster == asked.ClusterID {
			return yes, nil, nil
		}
		return no("node %s has given that list up", v.self.NodeID)
	}
	formed, conflict := clustersSeen(v.members)
	switch {
	case v.state || v.cluster != "":
		return no("node %s has a cluster already: %s", v.self.NodeID, v.cluster)
	case bound:
		return yes, nil, nil
	case conflict != "":
		return no("%s", conflict)
	case formed != "":
		return no("node %s sees a cluster already: %s", v.self.NodeID, formed)
	case v.self.Expect != len(asked.Founders):
		return no("node %s has --bootstrap-expect %d, the list has %d nodes: give all nodes the same", v.self.NodeID, v.self.Expect, len(asked.Founders))
	case !v.sought:
		return no("node %s is still looking around", v.self.NodeID)
	case v.promise == nil:
		return yes, asked, nil
	case sealed, v.promise.founder().NodeId != string(v.self.NodeID):
		return no("node %s is bound to the list of %s, founded by node %s", v.self.NodeID, names(v.promise.Founders), v.promise.founder().NodeId)
	case asked.founder().NodeId < string(v.self.NodeID):
		return yes, asked, nil // its own list is void from now on
	}
	return no("node %s founds a cluster itself", v.self.NodeID)
}

func names(list []*pb.Founder) string {
	ids := make([]string, len(list))
	for i, f := range list {
		ids[i] = f.NodeId
	}
	return strings.Join(ids, ", ")
}
