package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

const promiseFile = "promise.json"

// promiseJSON is the file's form.
type promiseJSON struct {
	ClusterID string        `json:"cluster_id"`
	Founders  []founderJSON `json:"founders"`
	Checksum  string        `json:"checksum"` // CRC32C of the fields above
}

type founderJSON struct {
	NodeID      string `json:"node_id"`
	DiskID      string `json:"disk_id"`
	RaftAddress string `json:"raft_address"`
}

func (p promiseJSON) checksum() string {
	text := p.ClusterID + "\n"
	for _, f := range p.Founders {
		text += fmt.Sprintf("%q %q %q\n", f.NodeID, f.DiskID, f.RaftAddress)
	}
	return fmt.Sprintf("%08x", crc32.Checksum([]byte(text), crc32.MakeTable(crc32.Castagnoli)))
}

// loadPromise reads promise.json; nil if there is none.
func loadPromise(dir string) (*promise, error) {
	path := filepath.Join(dir, promiseFile)
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("can't read the founding promise: %w", err)
	}
	var file promiseJSON
	err = json.Unmarshal(text, &file)
	if err == nil && file.Checksum != file.checksum() {
		err = fmt.Errorf("checksum %s, stored %s", file.checksum(), file.Checksum)
	}
	p := &promise{ClusterID: file.ClusterID}
	for _, f := range file.Founders {
		p.Founders = append(p.Founders, &pb.Founder{NodeId: f.NodeID, DiskId: f.DiskID, RaftAddress: f.RaftAddress})
	}
	if err == nil {
		err = p.valid()
	}
	if err != nil {
		return nil, stream.Errorf(stream.Corrupt, "broker.Open", "%s is damaged: %w; this node has no records yet: empty its data directory", path, err)
	}
	return p, nil
}

// formFiles is the formStore in a data directory.
type formFiles struct {
	dir         string
	saveCluster func(id string) error // into identity.json
}

func (s formFiles) SavePromise(p *promise) error {
	file := promiseJSON{ClusterID: p.ClusterID}
	for _, f := range p.Founders {
		file.Founders = append(file.Founders, founderJSON{NodeID: f.NodeId, DiskID: f.DiskId, RaftAddress: f.RaftAddress})
	}
	file.Checksum = file.checksum()
	text, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		return err
	}
	return writeFileDurably(filepath.Join(s.dir, promiseFile), append(text, '\n'))
}

func (s formFiles) ClearPromise() error {
	if err := os.Remove(filepath.Join(s.dir, promiseFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (s formFiles) SaveCluster(id string) error { return s.saveCluster(id) }

func newClusterID() string { return uuid.NewString() }

// setCluster notes in identity.json which cluster the node belongs to, for good.
func (id *identity) setCluster(dir, cluster string) error {
	changed := *id
	changed.ClusterID = cluster
	if err := changed.save(dir); err != nil {
		return err
	}
	*id = changed
	return nil
}
