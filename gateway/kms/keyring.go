package kms

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"shardstream/stream"
)

// lookEvery is how often a keyring in use looks whether its file has changed.
const lookEvery = time.Second

// Keyring is the provider whose keys are in a file. The file is read again when
// it has changed; one that can't be read leaves the former keys in use, one that
// is gone leaves none.
//
// A wrapped data key:
//
//	off size
//	  0    4  magic "SSK1"
//	  4    4  version of the key, little-endian
//	  8    1  length n of the key's id
//	  9    n  id
//	9+n   24  nonce, random
//	      32  data key, encrypted by XAES-256-GCM
//	      16  tag; all before the nonce and the context are authenticated
type Keyring struct {
	path   string
	create bool
	logger *slog.Logger

	current atomic.Pointer[keys]
	looked  atomic.Int64 // when the file was looked at, Unix ns

	mu   sync.Mutex  // held while the file is read or made; protects what is below
	seen fs.FileInfo // of the file in use, or last tried; nil: it was not there
}

// keys is a keyring in memory. It is immutable.
type keys struct {
	file    *KeyringFile
	version uint64
}

// OpenKeyring reads a keyring. With create a file that does not exist is made,
// with one key, when the first data key is asked for.
func OpenKeyring(path string, create bool, logger *slog.Logger) (*Keyring, error) {
	k := &Keyring{path: path, create: create, logger: logger}
	k.current.Store(&keys{file: &KeyringFile{}})
	k.mu.Lock()
	defer k.mu.Unlock()
	err := k.loadLocked()
	if errors.Is(err, fs.ErrNotExist) && create {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	if k.seen != nil && k.seen.Mode().Perm()&0o004 != 0 {
		logger.Warn("every user of this machine can read the keyring: chmod 600", "path", path)
	}
	return k, nil
}

// Version looks at the file if that was not done of late, and gives the number of
// what was read last.
func (k *Keyring) Version() uint64 {
	if now := time.Now().UnixNano(); now-k.looked.Load() >= int64(lookEvery) && k.mu.TryLock() {
		if err := k.loadLocked(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			k.logger.Error("the new keyring can't be used, the former stays", "error", err)
		}
		k.mu.Unlock()
	}
	return k.current.Load().version
}

// loadLocked reads the file if it has changed since it was last read.
func (k *Keyring) loadLocked() error {
	k.looked.Store(time.Now().UnixNano())
	info, err := os.Stat(k.path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) && k.seen != nil {
			k.logger.Error("the keyring is gone: no encrypted record can be read or written until it is back", "path", k.path)
			k.seen = nil
			k.useLocked(&KeyringFile{})
		}
		return fmt.Errorf("keyring: %w", err)
	}
	if k.seen != nil && os.SameFile(k.seen, info) && k.seen.ModTime().Equal(info.ModTime()) && k.seen.Size() == info.Size() {
		return nil
	}
	k.seen = info
	file, err := ReadKeyringFile(k.path)
	if err != nil {
		return err
	}
	k.useLocked(file)
	return nil
}

func (k *Keyring) useLocked(f *KeyringFile) {
	k.current.Store(&keys{file: f, version: k.current.Load().version + 1})
}

// make makes the file if there is none and it may. Who has encrypted something
// before has lost it, and must bring it back, not begin another.
func (k *Keyring) make() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.create || k.seen != nil {
		return nil
	}
	file := &KeyringFile{}
	if _, err := file.Add(time.Now()); err != nil {
		return err
	}
	if err := file.Write(k.path, true); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("keyring %s can't be made: %w", k.path, err)
	}
	k.logger.Info("made a keyring: encrypted records can't be read without it", "path", k.path)
	return k.loadLocked()
}

const wrappedMagic = "SSK1"

// GenerateDataKey makes a data key and wraps it with the key's last version.
func (k *Keyring) GenerateDataKey(_ context.Context, keyID string, c Context) (plain, wrapped []byte, err error) {
	k.Version()
	if c.First {
		if err := k.make(); err != nil {
			return nil, nil, err
		}
	}
	key, err := k.usable(keyID)
	if err != nil {
		return nil, nil, err
	}
	v := key.Versions[len(key.Versions)-1]
	aead, err := v.aead()
	if err != nil {
		return nil, nil, err
	}
	head := binary.LittleEndian.AppendUint32([]byte(wrappedMagic), v.Version)
	head = append(append(head, byte(len(key.ID))), key.ID...)
	plain, nonce := make([]byte, KeySize), make([]byte, nonceSize)
	rand.Read(plain) // never fails
	rand.Read(nonce)
	return plain, aead.Seal(append(head, nonce...), nonce, plain, c.bind(head)), nil
}

// Unwrap unwraps a data key. The wrapped key names its key itself: an alias may
// have moved on to another one.
func (k *Keyring) Unwrap(_ context.Context, _ string, wrapped []byte, c Context) ([]byte, error) {
	const op = "kms.Unwrap"
	if len(wrapped) < 9 || string(wrapped[:4]) != wrappedMagic || len(wrapped) != 9+int(wrapped[8])+nonceSize+KeySize+tagSize {
		return nil, stream.Errorf(stream.Corrupt, op, "a data key that no keyring has wrapped")
	}
	head, rest := wrapped[:9+int(wrapped[8])], wrapped[9+int(wrapped[8]):]
	id, number := string(head[9:]), binary.LittleEndian.Uint32(head[4:])
	key, err := k.usable(id)
	if err != nil {
		return nil, err
	}
	for _, v := range key.Versions {
		if v.Version != number {
			continue
		}
		aead, err := v.aead()
		if err != nil {
			return nil, err
		}
		plain, err := aead.Open(nil, rest[:nonceSize], rest[nonceSize:], c.bind(head))
		if err != nil {
			return nil, stream.Errorf(stream.Corrupt, op, "a data key that version %d of key %s has not wrapped for stream %s", number, id, c.Stream)
		}
		return plain, nil
	}
	return nil, refusal(NotFound, "Version %d of key '%s' does not exist", number, id)
}

// usable gives an enabled key. The texts are those of AWS KMS, as far as known.
func (k *Keyring) usable(keyID string) (*KeyringKey, error) {
	key := k.current.Load().file.Find(keyID)
	if key == nil {
		name, alias, ok := parseKeyID(keyID)
		switch {
		case !ok:
			return nil, refusal(NotFound, "Invalid keyId '%s'", keyID)
		case alias:
			return nil, refusal(NotFound, "Alias alias/%s is not found.", name)
		}
		return nil, refusal(NotFound, "Key '%s' does not exist", name)
	}
	switch key.State {
	case StateDisabled:
		return nil, refusal(Disabled, "%s is disabled.", key.ID)
	case StatePendingDeletion:
		return nil, refusal(InvalidState, "%s is pending deletion.", key.ID)
	}
	return key, nil
}

func (v KeyVersion) aead() (cipher.AEAD, error) {
	material, err := base64.StdEncoding.DecodeString(v.Material)
	if err != nil {
		return nil, err
	}
	return NewXAES(material)
}

// bind gives what is authenticated with a data key: the head of the wrapped key
// and the context, each part with its length.
func (c Context) bind(head []byte) []byte {
	out := make([]byte, 0, len(head)+8+len(c.Cluster)+len(c.Stream))
	out = append(out, head...)
	for _, s := range []string{c.Cluster, c.Stream} {
		out = append(binary.LittleEndian.AppendUint32(out, uint32(len(s))), s...)
	}
	return out
}
