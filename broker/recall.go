package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"

	"shardstream/broker/member"
	pb "shardstream/proto/shardstream/v1"
	"shardstream/raftfsm"
	"shardstream/stream"
)

// A node whose data directory was restored from a copy has forgotten what it
// acknowledged, and what it voted for in raft. It can't tell by itself; so
// every node remembers, on its own disk, what the metadata knew of the others'
// disks, and a node that restarts asks before it takes part in anything
// (I8, I18).

const (
	recallFile = "peers.json"
	// recallEvery is how often what is remembered is brought up to date. A copy
	// that is not older than this is not noticed.
	recallEvery = 10 * time.Second
	recallCall  = time.Second
)

// recalled is what is remembered of one node.
type recalled struct {
	Incarnation uint64 `json:"incarnation"`
	DiskID      string `json:"disk_id"`
	Frame       uint64 `json:"journal_frame"`
	Voter       bool   `json:"voter"`
}

// recalls is the memory of all other nodes, on disk.
type recalls struct {
	dir string

	mu    sync.Mutex
	nodes map[string]recalled
}

func loadRecalls(dir string) (*recalls, error) {
	r := &recalls{dir: dir, nodes: make(map[string]recalled)}
	path := filepath.Join(dir, recallFile)
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return r, nil
	case err != nil:
		return nil, fmt.Errorf("can't read what is remembered of other nodes: %w", err)
	}
	if err := json.Unmarshal(text, &r.nodes); err != nil {
		return nil, stream.Errorf(stream.Corrupt, "broker.Open", "%s is damaged: %w; restore it from a backup of this directory", path, err)
	}
	return r, nil
}

// of gives what is remembered of a node; the zero value if nothing is.
func (r *recalls) of(node string) recalled {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.nodes[node]
}

// voters gives the nodes that voted in raft when this node looked last.
func (r *recalls) voters() (nodes []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for node, known := range r.nodes {
		if known.Voter {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// others tells whether voters other than this node are remembered.
func (r *recalls) others(self string) bool {
	for _, v := range r.voters() {
		if v != self {
			return true
		}
	}
	return false
}

// known gives what the metadata knows.
func known(state *raftfsm.State, servers []raftfsm.Server) map[string]recalled {
	now := make(map[string]recalled)
	for _, b := range state.Brokers() {
		now[b.NodeId] = recalled{Incarnation: b.Incarnation, DiskID: b.DiskId, Frame: b.NotedFrame}
	}
	for _, s := range servers {
		if s.Voter { // it may not have registered yet, and counts all the same
			k := now[s.NodeID]
			k.Voter = true
			now[s.NodeID] = k
		}
	}
	return now
}

// urgent tells that more than journal frames is news: a voter that is not
// remembered as such would not be asked after the next start.
func (r *recalls) urgent(now map[string]recalled) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !maps.EqualFunc(now, r.nodes, func(a, b recalled) bool {
		a.Frame, b.Frame = 0, 0
		return a == b
	})
}

// learn takes over what the metadata knows, and writes it down if it is news.
func (r *recalls) learn(now map[string]recalled) error {
	r.mu.Lock()
	same := maps.Equal(now, r.nodes)
	r.nodes = now
	r.mu.Unlock()
	if same {
		return nil
	}
	text, err := json.MarshalIndent(now, "", "  ")
	if err != nil {
		return err
	}
	return writeFileDurably(filepath.Join(r.dir, recallFile), append(text, '\n'))
}

// run keeps the memory up to date until the context ends.
func (r *recalls) run(ctx context.Context, meta *raftfsm.Node, fail func(error)) {
	ticker := time.NewTicker(recallEvery)
	defer ticker.Stop()
	due := true
	for {
		state, changed := meta.Watch()
		if now := known(state, meta.Servers()); due || r.urgent(now) {
			if err := r.learn(now); err != nil {
				fail(fmt.Errorf("can't write what is to be remembered of other nodes: %w", err))
				return
			}
		}
		due = false
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-ticker.C:
			due = true
		}
	}
}

// Recall tells what this node remembers of another one's disk.
func (s *controllerService) Recall(_ context.Context, req *pb.RecallRequest) (*pb.RecallResponse, error) {
	if s.recalls == nil {
		return nil, stream.Errorf(stream.Unavailable, "broker.Recall", "this node has no peers")
	}
	if s.damaged.Load() {
		return nil, stream.Errorf(stream.Unavailable, "broker.Recall", "the metadata of this node is damaged")
	}
	known := s.recalls.of(req.NodeId)
	return &pb.RecallResponse{Incarnation: known.Incarnation, DiskId: known.DiskID, JournalFrame: known.Frame}, nil
}

// rolledBack reports whether an answer tells of more than the disk knows.
func rolledBack(answer *pb.RecallResponse, diskID string, mark incarnationMark, frame uint64) bool {
	if answer.DiskId != diskID {
		return answer.DiskId != "" && answer.Incarnation > max(mark.Confirmed, mark.Attempted)
	}
	newest := max(mark.Confirmed, mark.Attempted)
	return answer.Incarnation > newest || answer.Incarnation == newest && answer.JournalFrame > frame
}

// askPeers finds out whether this disk is a copy from an earlier time. It waits
// until a majority of the voters that this node knew, itself counted unless its
// metadata is damaged, has answered: raft could do nothing without them either.
func (b *Broker) askPeers(ctx context.Context, group *member.Group, damaged bool) (copied bool, err error) {
	voters := b.recalls.voters()
	self := string(b.identity.NodeID)
	mark, err := loadIncarnation(b.cfg.DataDir)
	if err != nil {
		return false, err
	}
	_, frame := b.records.Position()
	heard := map[string]bool{self: !damaged}
	told := false
	for {
		members, changed := group.Watch()
		missing := 0
		for _, v := range voters {
			if !heard[v] {
				missing++
			}
		}
		if (len(voters)-missing)*2 > len(voters) || len(voters) == 0 {
			return false, nil
		}
		for _, m := range members {
			node := string(m.NodeID)
			if node == self || heard[node] || m.State != member.Alive || m.ClusterID != b.identity.ClusterID {
				continue
			}
			call, cancel := context.WithTimeout(ctx, recallCall)
			answer, err := (formClient{b.cfg.dial}).Recall(call, m.GRPC, &pb.RecallRequest{ClusterId: b.identity.ClusterID, NodeId: self})
			cancel()
			if err != nil {
				continue
			}
			heard[node] = true
			if rolledBack(answer, b.identity.DiskID, mark, frame) {
				b.logger.Error("this data directory is a copy from an earlier time: it takes part as a new, empty disk, and gets everything again",
					"remembered by", node, "incarnation", answer.Incarnation, "here", mark.Confirmed, "journal frame", answer.JournalFrame, "here frame", frame)
				return true, nil
			}
		}
		if !told {
			told = true
			b.logger.Info("asking the other nodes whether this disk is the newest they know; a majority has to answer", "voters", voters)
		}
		timer := time.NewTimer(formRetry)
		select {
		case <-ctx.Done():
			timer.Stop()
			return false, stream.Errorf(stream.Unavailable, "broker.Open", "too few of the voters %v answer to tell whether this disk is the newest they know: %w", voters, context.Cause(ctx))
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// startAnew makes this disk a new one: another id, and raft's state put aside.
// The records stay; what of them is superseded leaves when its shard is whole.
func (b *Broker) startAnew() error {
	trash := filepath.Join(b.cfg.DataDir, "trash")
	if err := os.MkdirAll(trash, 0o755); err != nil {
		return err
	}
	changed := b.identity
	changed.DiskID = uuid.NewString()
	if err := changed.save(b.cfg.DataDir); err != nil {
		return err
	}
	b.identity = changed
	aside := filepath.Join(trash, "raft-"+time.Now().UTC().Format("20060102T150405.000"))
	if err := os.Rename(b.raftDir(), aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Remove(filepath.Join(b.cfg.DataDir, incarnationFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return errors.Join(syncDir(b.cfg.DataDir), syncDir(trash))
}
