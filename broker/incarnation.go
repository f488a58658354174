package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"shardstream/stream"
)

const incarnationFile = "incarnation.json"

// incarnationMark is what the disk knows of the node's registrations. A disk
// that knows another one than the metadata's was emptied, swapped or rolled
// back, and the metadata then holds all its replicas for lost (I8, I11). An
// attempt is written down before it is made, so that a crash right behind it
// does not look like that.
type incarnationMark struct {
	Confirmed uint64 `json:"confirmed"` // of the last registration whose outcome is known
	Attempted uint64 `json:"attempted"` // that the newest one could have given
}

// loadIncarnation reads the mark; the zero mark is that of a disk that was
// never registered.
func loadIncarnation(dir string) (m incarnationMark, err error) {
	path := filepath.Join(dir, incarnationFile)
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return m, nil
	case err != nil:
		return m, fmt.Errorf("can't read the node's incarnation: %w", err)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, stream.Errorf(stream.Corrupt, "broker.Open", "%s is damaged: %w; restore it from a backup of this directory", path, err)
	}
	return m, nil
}

func (m incarnationMark) save(dir string) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := writeFileDurably(filepath.Join(dir, incarnationFile), append(text, '\n')); err != nil {
		return fmt.Errorf("can't write the node's incarnation: %w", err)
	}
	return nil
}

// last gives what to tell of the last registration, of which the metadata knows
// the given one: that one if this disk made it or may have made it.
func (m incarnationMark) last(known uint64) uint64 {
	if known == m.Attempted {
		return known
	}
	return m.Confirmed
}
