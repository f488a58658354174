package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	pb "shardstream/proto/shardstream/v1"
)

// Propose answers an act as the metadata would: it knows node-1 to node-3 only.
func (f *fakeBroker) Propose(_ context.Context, req *pb.ProposeRequest) (*pb.ProposeResponse, error) {
	f.proposed = append(f.proposed, req.Command)
	result := &pb.CommandResult{Index: f.view.meta.index}
	if drain := req.Command.GetDrainBroker(); drain != nil && f.view.nodes[drain.NodeId] == nil {
		result.Error, result.Detail = pb.ErrorKind_ERROR_KIND_NOT_FOUND, `there is no broker "`+drain.NodeId+`"`
	}
	return &pb.ProposeResponse{Result: result}, nil
}

func TestActs(t *testing.T) {
	v := threeNodes(6)
	fakes := serveView(t, v)
	at := fakes["node-1"]
	for _, c := range []struct {
		args []string
		want string
		code int
	}{
		{[]string{"drain", "node-9"}, `shardstream cluster drain: there is no broker "node-9"; nothing was changed` + "\n", exitFailure},
		{[]string{"drain", "node-3"}, "broker node-3 is being drained: 6 replicas left, 2 leaderships, 0 B to copy; it can't end: 6 shards of it: 3 brokers are needed, and 2 are there to take them: start or add one\n", exitOK},
		{[]string{"undrain", "node-3"}, "broker node-3 is in use again\n", exitOK},
		{[]string{"remove", "node-3", "--json"}, `{"done":true,"said":"broker node-3 is removed: stop its process, if it runs, and delete its data directory"}` + "\n", exitOK},
		{[]string{"rebalance"}, "the cluster is balanced\n", exitOK},
		{[]string{"rebalance", "--stop"}, "rebalancing is stopped\n", exitOK},
		{[]string{"rebalance", "--wait", "--interval", "0s"}, "shardstream cluster rebalance: --interval 0s: want more than nothing (see 'shardstream cluster rebalance --help')\n", exitUsage},
	} {
		code, out, errs := runCLI(t, "", append([]string{"cluster"}, append(c.args, "--broker", at.address)...)...)
		if code != c.code || out+errs != c.want {
			t.Errorf("%v: status %d\n%s%swant\n%s", c.args, code, out, errs, c.want)
		}
	}
	if len(at.proposed) != 6 {
		t.Errorf("%d commands were proposed: %v", len(at.proposed), at.proposed)
	}
}

func TestDrainMovement(t *testing.T) {
	v := threeNodes(3)
	v.meta.brokers = append(v.meta.brokers, &pb.Broker{NodeId: "node-4", State: pb.BrokerState_BROKER_STATE_LIVE})
	v.nodes["node-4"] = &nodeView{status: &pb.NodeStatusResponse{NodeId: "node-4", DiskFull: true}}
	// Of shard 0 a copy is under way, shard 1 has one too many already.
	for n, s := range v.meta.shards[1] {
		leader := &pb.ReplicaStatus{Replica: &pb.ReplicaRef{StreamId: 1, Shard: uint32(n), ReplicaId: s.Leader}, Role: pb.ReplicaRole_REPLICA_ROLE_LEADER, Bytes: 1000}
		if n < 2 {
			r := &pb.Replica{Id: uint64(10*n + 4), NodeId: "node-4", State: pb.ReplicaState_REPLICA_STATE_CREATED}
			s.Replicas = append(s.Replicas, r)
			if n == 1 {
				s.InSync = append(s.InSync, r.Id)
			} else {
				leader.Followers = []*pb.FollowerStatus{{ReplicaId: r.Id, Attached: true, RemainingBytes: 400}}
			}
		}
		status := v.nodes["node-1"].status
		status.Replicas = append(status.Replicas, leader)
	}
	m := drainMovement(v, "node-1")
	if m.Done || m.Replicas != 3 || m.Leaders != 1 || m.UnderWay != 1 || m.Bytes != 1400 || len(m.Blocked) != 1 || !strings.Contains(m.Blocked[0], "node-4") {
		t.Errorf("%+v", m)
	}
	if m := drainMovement(v, "nobody"); !m.Done {
		t.Errorf("%+v", m)
	}
	v.meta.cluster.RebalancingSinceMs = 1
	if m := rebalanceMovement(v); m.Done || m.UnderWay != 1 || m.Bytes != 400 {
		t.Errorf("%+v", m)
	}
}

func TestSecondsLeft(t *testing.T) {
	w := &moveWatch{}
	at := time.Unix(1000, 0)
	for i, c := range []struct {
		after time.Duration
		bytes uint64
		want  int64
	}{{0, 1000, -1}, {time.Second, 1000, -1}, {2 * time.Second, 800, 9}, {4 * time.Second, 0, 1}} {
		if got := w.secondsLeft(at.Add(c.after), c.bytes); got != c.want {
			t.Errorf("look %d: %d, want %d", i, got, c.want)
		}
	}
}

// lostShard has both in-sync disks of shard 0 gone, and a third copy behind.
func lostShard() *clusterView {
	v := threeNodes(2)
	s := v.meta.shards[1][0]
	s.Leader, s.InSync, s.Version = 0, s.InSync[:2], 7
	s.Replicas[0].State, s.Replicas[1].State = pb.ReplicaState_REPLICA_STATE_LOST, pb.ReplicaState_REPLICA_STATE_LOST
	copyOf := func(id uint64, epoch uint32, hw, end uint64) *pb.ReplicaStatus {
		return &pb.ReplicaStatus{Replica: &pb.ReplicaRef{StreamId: 1, ReplicaId: id}, LastEpoch: epoch, HighWatermark: hw, DurableEnd: end, End: end}
	}
	// A longer one of an older leader, which was taken off the list, knows of
	// less; the newest knows of a higher end than it has.
	v.nodes["node-1"].status.OnDisk = []*pb.ReplicaStatus{copyOf(77, 2, 50, 90)}
	v.nodes["node-3"].status.Replicas = []*pb.ReplicaStatus{copyOf(3, 3, 60, 80)}
	return v
}

func TestRecoverPlan(t *testing.T) {
	v := lostShard()
	damage := map[string][]*pb.Damage{"node-3": {{Replica: &pb.ReplicaRef{StreamId: 1, ReplicaId: 3}, Start: 10, End: 14}}}
	plan := recoverPlan(v, damage, nil)
	if len(plan) != 1 {
		t.Fatalf("%d shards", len(plan))
	}
	l := plan[0]
	if len(l.Waits) != 0 || len(l.Copies) != 2 || l.Copies[0].Node != "node-3" || l.Copies[1].State != "" || l.Known != 4 || l.Most != 14 {
		t.Errorf("%+v", l)
	}
	c := l.command("op", "why").GetRecoverShard()
	if c.ReplicaId != 3 || c.NodeId != "node-3" || c.Version != 7 || c.LostFrom != 80 || c.LostTo != 90 || len(c.Damage) != 1 || c.By != "op" {
		t.Errorf("%v", c)
	}
	// One that is only down is waited for, until an operator says it is gone.
	v.meta.shards[1][0].Replicas[1].State = pb.ReplicaState_REPLICA_STATE_CREATED
	if l := recoverPlan(v, nil, nil)[0]; len(l.Waits) != 1 || l.Waits[0] != "node-2" {
		t.Errorf("%+v", l)
	}
	if l := recoverPlan(v, nil, []string{"node-2"})[0]; len(l.Waits) != 0 {
		t.Errorf("%+v", l)
	}
}

func TestClusterRecover(t *testing.T) {
	v := lostShard()
	at := serveView(t, v)["node-1"]
	code, out, errs := runCLI(t, "7\n", "cluster", "recover", "--broker", at.address)
	if code != exitFailure || !strings.Contains(out, "at most 10 records") || !strings.Contains(errs, "not confirmed, nothing was changed") || len(at.proposed) != 0 {
		t.Errorf("status %d, %d commands:\n%s%s", code, len(at.proposed), out, errs)
	}
	code, out, errs = runCLI(t, "10\n", "cluster", "recover", "--broker", at.address, "--by", "op")
	if code != exitOK || errs != "" || len(at.proposed) != 1 || !strings.Contains(out, "orders/shardId-000000000000 goes on with the copy of broker node-3, from offset 80") {
		t.Errorf("status %d, %d commands:\n%s%s", code, len(at.proposed), out, errs)
	}
	code, out, _ = runCLI(t, "", "cluster", "recover", "--broker", at.address, "--json")
	var report clusterRecovery
	if err := json.Unmarshal([]byte(out), &report); err != nil || code != exitOK || report.Accepting != 10 || len(at.proposed) != 1 {
		t.Errorf("status %d, %v: %s", code, err, out)
	}
	code, _, errs = runCLI(t, "", "cluster", "recover", "--broker", at.address, "--yes")
	if code != exitUsage || !strings.Contains(errs, "--accept-loss") {
		t.Errorf("status %d: %s", code, errs)
	}
}
