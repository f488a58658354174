package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// severity orders findings: the worst first. Only notes leave a cluster healthy.
type severity string

const (
	critical severity = "critical" // something is not served, or not safe, now
	warning  severity = "warning"  // one more failure would make it so
	note     severity = "note"     // good to know
)

// finding is one thing that is wrong, and what to do about it.
type finding struct {
	Severity severity `json:"severity"`
	What     string   `json:"what"`
	Do       string   `json:"do,omitempty"`
}

// shardCounts tells how many shards that take or hold records are in which trouble.
type shardCounts struct {
	Total           int `json:"total"`
	Offline         int `json:"offline"`
	BelowMinInSync  int `json:"belowMinInSync"`
	UnderReplicated int `json:"underReplicated"`
}

// health is what `cluster status` concludes.
type health struct {
	shards   shardCounts
	catchUp  []catchUp
	findings []finding // the worst first
}

// healthy reports whether nothing needs anybody's attention.
func (h *health) healthy() bool {
	return !slices.ContainsFunc(h.findings, func(f finding) bool { return f.Severity != note })
}

// catchUp is a node's replicas that are behind, added up.
type catchUp struct {
	Node      string `json:"node"`
	Replicas  int    `json:"replicas"`
	Remaining uint64 `json:"remainingBytes"`
	Total     uint64 `json:"totalBytes"`
}

// examine concludes from what was seen. It is pure: the same view gives the
// same words.
func examine(v *clusterView) *health {
	x := &examiner{v: v, h: &health{}, lit: make(map[string]bool), live: make(map[string]bool), brokers: make(map[string]*pb.Broker)}
	for _, b := range v.meta.brokers {
		x.brokers[b.NodeId] = b
		x.lit[b.NodeId] = v.nodes[b.NodeId].status != nil
		x.live[b.NodeId] = x.lit[b.NodeId] && b.State != pb.BrokerState_BROKER_STATE_FENCED
	}
	x.raft()
	x.nodes()
	x.limits()
	x.shards()
	x.progress()
	slices.SortStableFunc(x.h.findings, func(a, b finding) int { return cmp.Compare(rank(a.Severity), rank(b.Severity)) })
	return x.h
}

func rank(s severity) int { return slices.Index([]severity{critical, warning, note}, s) }

type examiner struct {
	v       *clusterView
	h       *health
	brokers map[string]*pb.Broker
	lit     map[string]bool // the node answered
	live    map[string]bool // and is not fenced

	noMajority bool // the metadata can't be changed
}

func (x *examiner) find(s severity, do, what string, args ...any) {
	x.h.findings = append(x.h.findings, finding{Severity: s, What: fmt.Sprintf(what, args...), Do: do})
}

// raft looks whether the metadata can be changed: without that no failover,
// no new stream, and no admission of a node.
func (x *examiner) raft() {
	raft := x.v.raft()
	servers := make(map[string]int)
	for _, s := range raft.servers {
		servers[s.NodeId]++
	}
	var voters, silent, former []string
	for _, s := range raft.servers {
		if !s.Voter {
			continue
		}
		voters = append(voters, s.NodeId)
		switch {
		case servers[s.NodeId] > 1:
			// A node whose disk was lost is another server since (I18): the one
			// of the former disk votes no more, and this is the one.
			servers[s.NodeId]--
			silent, former = append(silent, s.NodeId), append(former, s.NodeId)
		case !x.lit[s.NodeId]:
			silent = append(silent, s.NodeId)
		}
	}
	if len(former) > 0 {
		slices.Sort(former)
		x.find(warning, "nothing: another voter takes its place within about a minute",
			"the disk of %s is gone, and with it a voter of the metadata", strings.Join(former, ", "))
	}
	slices.Sort(silent)
	need := len(voters)/2 + 1
	answering := len(voters) - len(silent)
	switch {
	case len(voters) == 0:
	case answering < need:
		x.noMajority = true
		startable := slices.DeleteFunc(slices.Clone(silent), func(n string) bool { return slices.Contains(former, n) })
		do := "start " + someOf(min(need-answering, len(startable)), startable)
		if len(startable) < need-answering {
			do = "bring back the former disk of " + strings.Join(former, ", ")
		}
		x.find(critical, do,
			"the metadata has no majority: %d of %d voters answer, %d are needed; nothing fails over and no stream can be changed until then", answering, len(voters), need)
	case raft.leader == "" || !x.lit[raft.leader]:
		x.find(critical, "look again in some seconds; if it stays so, look at the voters' logs: "+strings.Join(voters, ", "),
			"the metadata has no leader: one is being elected")
	case len(voters) < x.seats():
		x.find(warning, "nothing: another broker gets a vote within about a minute of being well",
			"the metadata has %s, and should have %d", plural(uint64(len(voters)), "voter"), x.seats())
	case len(silent) > len(former) && answering == need:
		x.find(warning, "", "%s not answer, and the metadata can't lose another voter", doesNot(silent))
	}
}

// seats is how many voters the cluster wants: 3, from 5 brokers on 5.
func (x *examiner) seats() int {
	n := 0
	for _, b := range x.v.meta.brokers {
		if b.State != pb.BrokerState_BROKER_STATE_GONE {
			n++
		}
	}
	switch {
	case n >= 5:
		return 5
	case n >= 3:
		return 3
	}
	return 1
}

func (x *examiner) nodes() {
	for _, b := range x.v.meta.brokers {
		n := x.v.nodes[b.NodeId]
		name, at := "broker "+b.NodeId, b.GrpcAddress
		switch {
		case b.State == pb.BrokerState_BROKER_STATE_GONE:
			continue
		case n.status == nil && b.State == pb.BrokerState_BROKER_STATE_STOPPING:
			x.find(warning, "start it again when its maintenance is over", "%s was stopped on purpose", name)
		case n.status == nil:
			x.find(warning, "start it, or look at its log and its network", "%s at %s does not answer: %s%s", name, at, n.problem, fencedToo(b))
		case b.State == pb.BrokerState_BROKER_STATE_FENCED:
			x.find(warning, "it comes back by itself; if it does not within a minute, look at its log", "%s answers, but is fenced%s", name, reason(b))
		case b.State == pb.BrokerState_BROKER_STATE_STOPPING:
			x.find(warning, "", "%s is stopping", name)
		case b.State == pb.BrokerState_BROKER_STATE_DRAINING:
			x.draining(b.NodeId)
		}
		if n.status == nil {
			continue
		}
		if id := x.v.meta.cluster.GetId(); n.status.ClusterId != id {
			x.find(critical, "stop it: two brokers use one address", "%s at %s belongs to another cluster, %s", name, at, n.status.ClusterId)
		}
		if n.status.DiskFull {
			x.find(critical, "make room, add brokers, or lower retentions; it takes puts again by itself", "the disk of %s is almost full (%s free): it takes no puts", name, size(uint64(n.status.DiskFree)))
		}
		if n.status.DiskStalled {
			x.find(critical, "look at the disk and the kernel's log; the node stops by itself if this lasts", "the disk of %s does not answer", name)
		}
	}
	for _, m := range x.v.members() {
		if x.brokers[m.NodeId] == nil && m.State == "alive" {
			x.find(warning, "look at its log", "broker %s is there (gossip at %s), but has not joined yet", m.NodeId, m.Address)
		}
	}
}

// limits looks whether all brokers hold their shards to limits, or none: else a
// shard would have them or not by who leads it.
func (x *examiner) limits() {
	var with, without []string
	for _, b := range x.v.meta.brokers {
		switch {
		case !x.live[b.NodeId]:
		case b.ShardLimits:
			with = append(with, b.NodeId)
		default:
			without = append(without, b.NodeId)
		}
	}
	if len(with) > 0 && len(without) > 0 {
		x.find(warning, "start all brokers with the same --shard-limits", "brokers %s hold their shards to limits, and %s do not",
			strings.Join(with, ", "), strings.Join(without, ", "))
	}
}

// draining tells how far a drain has got.
func (x *examiner) draining(node string) {
	m := drainMovement(x.v, node)
	switch {
	case m.Done:
		x.find(note, "shardstream cluster remove "+node+", or undrain it", "broker %s is drained: it holds nothing", node)
	case len(m.Blocked) > 0:
		x.find(warning, "", "the drain of broker %s can't end: %s", node, strings.Join(m.Blocked, "; "))
	default:
		x.find(note, "", "broker %s is being drained: %s", node, m)
	}
}

func fencedToo(b *pb.Broker) string {
	if b.State == pb.BrokerState_BROKER_STATE_FENCED {
		return "; it is fenced" + reason(b)
	}
	return ""
}

func reason(b *pb.Broker) string {
	if b.Reason == "" {
		return ""
	}
	return " (" + b.Reason + ")"
}

// troubled is a group of shards with the same trouble and the same cure.
type troubled struct {
	names []string
	count int
}

// shards groups what is wrong with shards by its cure, so that a node with ten
// thousand of them is one line.
func (x *examiner) shards() {
	offline, waiting, lost := make(map[string]*troubled), make(map[string]*troubled), make(map[string]*troubled)
	under, leaderDark := make(map[string]*troubled), make(map[string]*troubled)
	for _, s := range x.v.meta.streamsByName() {
		for _, shard := range x.v.meta.shards[s.Id] {
			if len(shard.Replicas) == 0 || s.Status == pb.StreamStatus_STREAM_STATUS_DELETING || shard.State == pb.ShardState_SHARD_STATE_CREATING {
				continue
			}
			x.h.shards.Total++
			name := s.Name + "/" + stream.ShardName(shard.Number)
			p := x.placeOf(shard)
			switch {
			case p.leader == "" && len(p.electable) == 0:
				x.h.shards.Offline++
				add(lost, strings.Join(p.inSync, ", "), name)
			case p.leader == "":
				x.h.shards.Offline++
				add(offline, strings.Join(p.electable, ", "), name)
			case !x.lit[p.leader]:
				add(leaderDark, p.leader, name)
			}
			if p.leader != "" && p.live < int(shard.MinInSync) {
				x.h.shards.BelowMinInSync++
				add(waiting, someOf(min(int(shard.MinInSync)-p.live, len(p.silent)), p.silent), name)
			}
			if len(shard.InSync) < int(shard.ReplicationFactor) || p.live < len(shard.InSync) {
				x.h.shards.UnderReplicated++
				do := "nothing: the cluster repairs it by itself, see who is catching up"
				if x.liveNodes() < int(shard.ReplicationFactor) {
					do = fmt.Sprintf("start brokers or add some: there are %d for %d copies", x.liveNodes(), shard.ReplicationFactor)
				}
				add(under, do, name)
			}
		}
	}
	for _, key := range sortedKeys(offline) {
		t := offline[key]
		do := "start any of these brokers, whose disks have all of its records: " + key
		if !strings.Contains(key, ",") {
			do = "start broker " + key + ": only its disk has all of its records"
		}
		x.find(critical, do, "%s %s offline, puts and reads of %s fail: %s", plural(uint64(t.count), "shard"), isAre(t.count), itThem(t.count), t)
	}
	for _, key := range sortedKeys(lost) {
		t := lost[key]
		x.find(critical, "bring back the disks of "+key+", or see what can be saved with: shardstream cluster recover",
			"%s %s offline, and no copy is sound: %s", plural(uint64(t.count), "shard"), isAre(t.count), t)
	}
	for _, key := range sortedKeys(waiting) {
		t := waiting[key]
		do := "start " + key
		if key == "" {
			do = "add a broker, or wait until a replica has caught up"
		}
		x.find(critical, do, "puts to %s wait: too few in-sync replicas are there: %s", plural(uint64(t.count), "shard"), t)
	}
	for _, key := range sortedKeys(leaderDark) {
		t := leaderDark[key]
		do := "look again in some seconds: another broker takes over"
		if x.noMajority {
			do = "give the metadata its majority, or start broker " + key
		}
		x.find(critical, do, "the leader of %s, broker %s, does not answer: %s", plural(uint64(t.count), "shard"), key, t)
	}
	for _, do := range sortedKeys(under) {
		t := under[do]
		x.find(warning, do, "%s %s fewer in-sync replicas than wanted: %s", plural(uint64(t.count), "shard"), hasHave(t.count), t)
	}
}

func (x *examiner) liveNodes() (n int) {
	for _, live := range x.live {
		if live {
			n++
		}
	}
	return n
}

// shardPlace is where a shard's replicas are, by the names of their nodes.
type shardPlace struct {
	leader    string   // "" while offline
	inSync    []string // nodes of the in-sync set, sorted
	electable []string // those of them whose copy is sound
	silent    []string // those of them that are not live
	live      int      // in-sync members on live nodes
}

func (x *examiner) placeOf(shard *pb.Shard) (p shardPlace) {
	for _, r := range shard.Replicas {
		if r.Id == shard.Leader {
			p.leader = r.NodeId
		}
		if !slices.Contains(shard.InSync, r.Id) {
			continue
		}
		p.inSync = append(p.inSync, r.NodeId)
		if r.State == pb.ReplicaState_REPLICA_STATE_CREATED {
			p.electable = append(p.electable, r.NodeId)
		}
		if x.live[r.NodeId] && r.State != pb.ReplicaState_REPLICA_STATE_LOST {
			p.live++
		} else {
			p.silent = append(p.silent, r.NodeId)
		}
	}
	slices.Sort(p.inSync)
	slices.Sort(p.electable)
	slices.Sort(p.silent)
	return p
}

// progress adds up what the leaders say of replicas that are behind.
func (x *examiner) progress() {
	behind := make(map[string]*catchUp)
	damaged := make(map[string]int)
	for _, node := range sortedKeys(x.v.nodes) {
		for _, r := range x.v.nodes[node].status.GetReplicas() {
			if r.Damaged {
				damaged[node]++
			}
			for _, f := range r.Followers {
				if !f.CatchingUp {
					continue
				}
				c := behind[f.NodeId]
				if c == nil {
					c = &catchUp{Node: f.NodeId}
					behind[f.NodeId] = c
				}
				c.Replicas++
				c.Remaining += f.RemainingBytes
				c.Total += f.TotalBytes
			}
		}
	}
	for _, node := range sortedKeys(behind) {
		c := behind[node]
		x.h.catchUp = append(x.h.catchUp, *c)
		x.find(note, "", "broker %s is catching up: %s, %s of %s left", node, plural(uint64(c.Replicas), "replica"), size(c.Remaining), size(c.Total))
	}
	if m := rebalanceMovement(x.v); !m.Done {
		x.find(note, "", "replicas are being rebalanced: %s", m)
	}
	for _, node := range sortedKeys(damaged) {
		do := "nothing: what others have whole is copied from them"
		if len(x.v.meta.brokers) == 1 {
			do = "see shardstream cluster recover --broker " + x.brokers[node].GetGrpcAddress()
		}
		x.find(warning, do,
			"broker %s has stored records that failed their checksums, in %s", node, plural(uint64(damaged[node]), "replica"))
	}
}

func add(m map[string]*troubled, key, name string) {
	t := m[key]
	if t == nil {
		t = &troubled{}
		m[key] = t
	}
	t.count++
	if len(t.names) < 3 {
		t.names = append(t.names, name)
	}
}

// String names the first of them.
func (t *troubled) String() string {
	text := strings.Join(t.names, ", ")
	if more := t.count - len(t.names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

func someOf(n int, names []string) string {
	switch {
	case len(names) == 0:
		return ""
	case len(names) == 1:
		return "broker " + names[0]
	case n == len(names):
		return "all of: " + strings.Join(names, ", ")
	}
	return fmt.Sprintf("%d of: %s", n, strings.Join(names, ", "))
}

func doesNot(nodes []string) string {
	if len(nodes) == 1 {
		return "voter " + nodes[0] + " does"
	}
	return "voters " + strings.Join(nodes, ", ") + " do"
}

func isAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

func hasHave(n int) string {
	if n == 1 {
		return "has"
	}
	return "have"
}

func itThem(n int) string {
	if n == 1 {
		return "it"
	}
	return "them"
}

// size gives bytes for people.
func size(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	v, i := float64(n), 0
	for v >= 1024 && i < len(units)-1 {
		v /= 1024
		i++
	}
	if i == 0 || v >= 100 {
		return fmt.Sprintf("%.0f %s", v, units[i])
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}
