package kms

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"gopkg.in/yaml.v3"
)

// KeyringFile is what a keyring file holds, as YAML.
type KeyringFile struct {
	// Default is the id of the key that alias/aws/kinesis stands for. Empty: none.
	Default string       `yaml:"default,omitempty"`
	Keys    []KeyringKey `yaml:"keys"`
}

// KeyringKey is a key that wraps data keys.
type KeyringKey struct {
	ID      string   `yaml:"id"`
	Aliases []string `yaml:"aliases,omitempty,flow"` // without "alias/"
	State   KeyState `yaml:"state"`
	// Versions are the key's material over time, by rising number. The last one
	// wraps; the others unwrap what they wrapped.
	Versions []KeyVersion `yaml:"versions"`
}

// KeyVersion is the material of a key from one rotation to the next.
type KeyVersion struct {
	Version  uint32    `yaml:"version"`
	Created  time.Time `yaml:"created,omitempty"`
	Material string    `yaml:"material"` // base64 of KeySize bytes
}

// KeyState says whether a key may be used.
type KeyState string

// The states. A key that is pending deletion only differs from a disabled one in
// the error that its users get.
const (
	StateEnabled         KeyState = "enabled"
	StateDisabled        KeyState = "disabled"
	StatePendingDeletion KeyState = "pending-deletion"
)

var (
	keyIDPattern = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)
	aliasPattern = regexp.MustCompile(`^[A-Za-z0-9/_-]{1,250}$`)
)

const keyringHead = `# A keyring of Shardstream: the keys with which streams' data keys are wrapped.
# Whoever reads it can read the encrypted records; without it nobody ever can.
`

// ParseKeyring reads the text of a keyring file, strictly. Errors are one line,
// name the place, and never hold a key.
func ParseKeyring(text []byte) (*KeyringFile, error) {
	f := &KeyringFile{}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(f); errors.Is(err, io.EOF) {
		return nil, errors.New("the file is empty")
	} else if err != nil {
		return nil, yamlError(err)
	}
	if err := d.Decode(&struct{}{}); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one document")
	}
	if err := f.check(); err != nil {
		return nil, err
	}
	return f, nil
}

// quoted is a piece of the file in an error of the YAML decoder, which may be a
// key in the wrong place.
var quoted = regexp.MustCompile("`[^`]*`|[A-Za-z0-9+/=]{40,}")

// yamlError makes one line of a decoder's error, without what the file holds.
func yamlError(err error) error {
	return errors.New(quoted.ReplaceAllString(strings.Join(strings.Fields(err.Error()), " "), "a value"))
}

func (f *KeyringFile) check() error {
	ids, aliases := map[string]bool{}, map[string]bool{}
	for i := range f.Keys {
		k := &f.Keys[i]
		switch {
		case !keyIDPattern.MatchString(k.ID):
			return fmt.Errorf("key %d: an id is 1 to 64 letters, digits or '-'", i+1)
		case ids[k.ID]:
			return fmt.Errorf("key %s is there twice", k.ID)
		case k.State != StateEnabled && k.State != StateDisabled && k.State != StatePendingDeletion:
			return fmt.Errorf("key %s: the state is %s, %s or %s", k.ID, StateEnabled, StateDisabled, StatePendingDeletion)
		case len(k.Versions) == 0:
			return fmt.Errorf("key %s has no versions", k.ID)
		}
		ids[k.ID] = true
		for _, a := range k.Aliases {
			switch {
			case !aliasPattern.MatchString(a) || strings.HasPrefix(a, "aws/"):
				return fmt.Errorf("key %s: an alias is 1 to 250 letters, digits, '/', '_' or '-', without \"alias/\" and not below \"aws/\"", k.ID)
			case aliases[a]:
				return fmt.Errorf("alias %s is there twice", a)
			}
			aliases[a] = true
		}
		for j, v := range k.Versions {
			if v.Version == 0 || j > 0 && v.Version <= k.Versions[j-1].Version {
				return fmt.Errorf("key %s: versions have rising numbers from 1", k.ID)
			}
			if material, err := base64.StdEncoding.DecodeString(v.Material); err != nil || len(material) != KeySize {
				return fmt.Errorf("key %s: the material of version %d is not the base64 of %d bytes", k.ID, v.Version, KeySize)
			}
		}
	}
	if f.Default != "" && !ids[f.Default] {
		return fmt.Errorf("the default key %s is not there", f.Default)
	}
	return nil
}

// Add makes a new enabled key with the given aliases. The first of a keyring is
// its default.
func (f *KeyringFile) Add(now time.Time, aliases ...string) (*KeyringKey, error) {
	f.Keys = append(f.Keys, KeyringKey{
		ID: uuid.NewString(), Aliases: aliases, State: StateEnabled, Versions: []KeyVersion{newVersion(1, now)},
	})
	if len(f.Keys) == 1 {
		f.Default = f.Keys[0].ID
	}
	return &f.Keys[len(f.Keys)-1], f.check()
}

func newVersion(number uint32, now time.Time) KeyVersion {
	material := make([]byte, KeySize)
	rand.Read(material) // never fails
	return KeyVersion{Version: number, Created: now.UTC().Truncate(time.Second), Material: base64.StdEncoding.EncodeToString(material)}
}

// Find gives the key of any form of its name, nil if there is none.
func (f *KeyringFile) Find(keyID string) *KeyringKey {
	name, alias, ok := parseKeyID(keyID)
	if !ok {
		return nil
	}
	i := slices.IndexFunc(f.Keys, func(k KeyringKey) bool {
		switch {
		case !alias:
			return k.ID == name
		case name == aliasOfService:
			return k.ID == f.Default
		}
		return slices.Contains(k.Aliases, name)
	})
	if i < 0 {
		return nil
	}
	return &f.Keys[i]
}

// Rotate gives the key new material for data keys that are made from now on.
func (k *KeyringKey) Rotate(now time.Time) {
	k.Versions = append(k.Versions, newVersion(k.Versions[len(k.Versions)-1].Version+1, now))
}

// ReadKeyringFile reads a keyring. A file that does not exist is fs.ErrNotExist.
func ReadKeyringFile(path string) (*KeyringFile, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f, err := ParseKeyring(text)
	if err != nil {
		return nil, fmt.Errorf("keyring %s: %w", path, err)
	}
	return f, nil
}

// Write puts the keyring at the path in one step. With create the path must be
// free (fs.ErrExist), and only the owner can read the file; else it keeps owner
// and mode.
func (f *KeyringFile) Write(path string, create bool) (err error) {
	if err := f.check(); err != nil {
		return err
	}
	body, err := yaml.Marshal(f)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	temp, err := os.CreateTemp(dir, ".keyring-*") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if e := os.Remove(temp.Name()); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}()
	_, err = temp.Write(append([]byte(keyringHead), body...))
	if err == nil && !create {
		err = sameAccess(temp, path)
	}
	if err == nil {
		err = temp.Sync()
	}
	if err = errors.Join(err, temp.Close()); err != nil {
		return err
	}
	if create {
		err = os.Link(temp.Name(), path)
	} else {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return err
	}
	return syncDir(dir)
}

// sameAccess gives a file the owner and mode of another: who edits a keyring is
// often root, and who reads it is not.
func sameAccess(f *os.File, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Geteuid() {
		if err := f.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
	}
	return f.Chmod(info.Mode().Perm())
}

// syncDir makes a new name in the directory durable: records that are encrypted
// with a key must not outlive it.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
