package broker

import (
	"testing"
	"time"

	"shardstream/stream"
)

func TestWhatTheMetadataFailsToMentionIsKept_I16(t *testing.T) {
	key := stream.ReplicaKey{Shard: stream.ShardID{Stream: 3}, Replica: 7}
	var o orphans
	look := func(missing bool, at time.Duration, index uint64) int {
		var keys []stream.ReplicaKey
		if missing {
			keys = append(keys, key)
		}
		return len(o.due(keys, at, index))
	}
	if look(true, 0, 10) != 0 || look(true, orphanAge-1, 11) != 0 {
		t.Fatal("deleted before a day has passed")
	}
	if look(true, orphanAge, 10) != 0 {
		t.Fatal("deleted though the metadata stands still")
	}
	if look(false, orphanAge, 11) != 0 || look(true, orphanAge+1, 12) != 0 {
		t.Fatal("deleted though it was there again meanwhile")
	}
	if look(true, 2*orphanAge+1, 13) != 1 {
		t.Fatal("kept for ever")
	}
}
