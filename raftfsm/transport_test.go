package raftfsm

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"
)

// Raft's pipelines can hang for ever; broker's tests of partitions show it.
func TestNoPipelines(t *testing.T) {
	n := newMemNet()
	cfg := Config{NodeID: "n", DiskID: "0123456789abcdef", Listener: n.listen("a"), Dial: n.dialer("a")}.withDefaults()
	trans := newTransport(cfg, newLayer(cfg)).(*raft.NetworkTransport)
	defer trans.Close()
	if _, err := trans.AppendEntriesPipeline("n", "n@a"); !errors.Is(err, raft.ErrPipelineReplicationNotSupported) {
		t.Fatalf("a pipeline was opened: %v", err)
	}
}
