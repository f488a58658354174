package stream

import (
	"errors"
	"fmt"
	"io"
	"testing"
)

func TestParseShardName(t *testing.T) {
	for s, want := range map[string]int64{
		"shardId-000000000000": 0, "shardId-0": 0, "0": 0, "foo-0": 0, "a-00000000000": 0, "-7": 7, "shardId-000000003076": 3076, "2147483647": 2147483647,
		"shardId-2147483648": -1, "": -1, "-": -1, "shardId-": -1, "shardId": -1, "shardId--1": -1, "a-b-1": -1, "1a": -1, "+1": -1, "shardId-1 ": -1,
		"shardId-99999999999999999999999": -1, "٣": -1,
	} {
		n, ok := ParseShardName(s)
		if got := int64(n); ok != (want >= 0) || ok && got != want {
			t.Errorf("%q: got %d, %v", s, n, ok)
		}
	}
	for _, n := range []uint32{0, 1, 3076, 1<<31 - 1} {
		name := ShardName(n)
		if got, ok := ParseShardName(name); !ok || got != n || len(name) != len("shardId-")+12 {
			t.Errorf("%d: %s is read as %d", n, name, got)
		}
	}
}

func TestStrings(t *testing.T) {
	key := ReplicaKey{ShardID{7, 3}, 9}
	if got := fmt.Sprint(key, key.Shard, OffsetRange{1, 5}); got != "7/3-9 7/3 [1,5)" {
		t.Error(got)
	}
}

func TestErrors(t *testing.T) {
	if len(Kinds()) != 15 {
		t.Errorf("%d kinds", len(Kinds()))
	}
	seen := map[string]bool{}
	for _, k := range Kinds() {
		if k.String() == "" || seen[k.String()] {
			t.Errorf("kind %d is called %q", k, k)
		}
		seen[k.String()] = true

		err := error(Errorf(k, "op", "detail %d: %w", 1, io.EOF))
		wrapped := fmt.Errorf("more: %w", err)
		if !errors.Is(wrapped, k) || !errors.Is(wrapped, io.EOF) || KindOf(wrapped) != k || KindOf(k) != k || KindOf(fmt.Errorf("x: %w", k)) != k {
			t.Errorf("%v is not recognised", err)
		}
		for _, other := range Kinds() {
			if other != k && errors.Is(wrapped, other) {
				t.Errorf("%v is taken for %v", err, other)
			}
		}
		if got, want := err.Error(), "op: "+k.String()+": detail 1: EOF"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if KindOf(nil) != 0 || KindOf(io.EOF) != Internal {
		t.Error("errors that are not ours")
	}
	if got := Kind(0).String(); got != "kind 0" {
		t.Error(got)
	}
	if got := Kind(200).String(); got != "kind 200" {
		t.Error(got)
	}
}
