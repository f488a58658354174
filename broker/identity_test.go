package broker

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"shardstream/stream"
)

func TestIdentityIsKept(t *testing.T) {
	dir := t.TempDir()
	first, err := loadIdentity(dir, "", "host-a", true)
	if err != nil || first.NodeID != "host-a" {
		t.Fatal(first, err)
	}
	again, err := loadIdentity(dir, "", "host-b", true) // a container's new hostname
	if err != nil || again != first {
		t.Fatal(again, err)
	}
	if _, err := loadIdentity(dir, "other", "host-b", true); err == nil || !strings.Contains(err.Error(), `belongs to node "host-a"`) {
		t.Fatal(err)
	}
}

func TestEveryFlippedBitOfTheIdentityIsFound(t *testing.T) {
	dir := t.TempDir()
	if _, err := loadIdentity(dir, "", "n", true); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "identity.json")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := loadIdentity(dir, "", "n", true)
	for i := range len(good) * 8 {
		bad := append([]byte(nil), good...)
		bad[i/8] ^= 1 << (i % 8)
		if err := os.WriteFile(path, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		// White space may change without harm; a value never may.
		if got, err := loadIdentity(dir, "", "n", true); err == nil && got != want {
			t.Fatalf("bit %d: accepted %+v", i, got)
		}
	}
}

func TestDataWithoutIdentityIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "journal"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := loadIdentity(dir, "", "n", true); err == nil || !strings.Contains(err.Error(), "no identity.json") {
		t.Fatal(err)
	}
}

func TestNewerFormatIsRefused(t *testing.T) {
	dir := t.TempDir()
	id := identity{ClusterID: "c", NodeID: "n", DiskID: "d", FormatVersion: formatVersion + 1}
	id.Checksum = id.checksum()
	text := `{"cluster_id":"c","node_id":"n","disk_id":"d","format_version":2,"checksum":"` + id.Checksum + `"}`
	if err := os.WriteFile(filepath.Join(dir, "identity.json"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := loadIdentity(dir, "", "n", true); err == nil || !strings.Contains(err.Error(), "run the newer version") {
		t.Fatal(err)
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockDir(dir); err == nil || !strings.Contains(err.Error(), "in use by another shardstream") {
		t.Fatal(err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	unlock, err = lockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestEveryKindHasAStatus(t *testing.T) {
	for _, k := range stream.Kinds() {
		if _, ok := codeOf[k]; !ok {
			t.Errorf("kind %v has no gRPC code", k)
		}
	}
	if toStatus(nil) != nil {
		t.Error("no error became a status")
	}
	if err := toStatus(errors.New("x")); err == nil {
		t.Error("an error became none")
	}
}

// TestMakeDirDurably makes what is missing, takes what is there, and refuses a
// file. That the names last is seen in test/chaos/powerfs.
func TestMakeDirDurably(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	for range 2 {
		if err := makeDirDurably(dir); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{file, filepath.Join(file, "below")} {
		if err := makeDirDurably(name); !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
