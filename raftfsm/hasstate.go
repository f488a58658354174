package raftfsm

import (
	"errors"
	"os"
	"path/filepath"
)

// Verify reads all that a node's raft directory holds, and fails with Kind
// Corrupt if any of it is damaged. No node may be using it.
func Verify(dir string) error {
	ignore := func(error) {} // it is returned as well
	snaps, err := openSnapStore(filepath.Join(dir, "snapshots"), ignore)
	if err != nil {
		return err
	}
	logs, err := openStore(dir, ignore)
	if err != nil {
		return err
	}
	return errors.Join(joinUp(logs, snaps), logs.Close())
}

// HasState tells whether a node's raft directory holds anything of a cluster:
// then the node must never form another. What can't be read counts as state.
// Not for a directory whose node is open.
func HasState(dir string) bool {
	held, err := hasState(dir)
	return held || err != nil
}

func hasState(dir string) (held bool, err error) {
	snaps, err := os.ReadDir(filepath.Join(dir, "snapshots"))
	if err != nil && !errors.Is(err, os.ErrNotExist) || len(snaps) > 0 {
		return true, err
	}
	_, boltErr := os.Stat(filepath.Join(dir, boltFile))
	_, markErr := os.Stat(filepath.Join(dir, markFile))
	if errors.Is(boltErr, os.ErrNotExist) && errors.Is(markErr, os.ErrNotExist) {
		return false, nil
	}
	// Raft writes a term of 0 before it has one, so the files alone say nothing.
	logs, err := openStore(dir, func(error) {})
	if err != nil {
		return true, err
	}
	defer func() { err = errors.Join(err, logs.Close()) }()
	_, last, err := logs.bounds()
	if err != nil || last > 0 {
		return true, err
	}
	term, err := logs.GetUint64([]byte(stableKeys[0]))
	return term > 0, err
}
