package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"text/tabwriter"
	"time"

	"shardstream/gateway/kms"
)

// keyringCmd is `shardstream keyring`.
type keyringCmd struct {
	Init    keyringInitCmd    `cmd:"" help:"Make a keyring with one key."`
	Add     keyringAddCmd     `cmd:"" help:"Add a key."`
	Rotate  keyringRotateCmd  `cmd:"" help:"Give a key new material for what it wraps from now on."`
	State   keyringStateCmd   `cmd:"" help:"Enable or disable a key."`
	Default keyringDefaultCmd `cmd:"" help:"Choose the key that alias/aws/kinesis stands for."`
	List    keyringListCmd    `cmd:"" help:"List the keys, without their material."`
}

// Help is what `shardstream keyring --help` says below its first line.
func (keyringCmd) Help() string {
	return `A keyring is the file that gateways get with --kms-keyring. Its keys wrap the data keys of encrypted streams.
Whoever has the file can read their records; if it is lost, they are lost. Keep a copy apart from the data.
Gateways notice changes of their file within a second.

Examples:
  shardstream keyring init /etc/shardstream/keyring.yaml
  shardstream keyring add /etc/shardstream/keyring.yaml --alias orders
  shardstream keyring rotate /etc/shardstream/keyring.yaml alias/orders
  shardstream keyring state /etc/shardstream/keyring.yaml alias/orders disabled
  aws kinesis start-stream-encryption --stream-name s --encryption-type KMS --key-id alias/orders`
}

// keyringInitCmd is `shardstream keyring init`.
type keyringInitCmd struct {
	File  string   `arg:"" help:"The keyring to make."`
	Alias []string `placeholder:"NAME" help:"Also call the key alias/NAME. Repeatable."`
}

func (c *keyringInitCmd) Run(e *env) error {
	f := &kms.KeyringFile{}
	k, err := addKey(f, c.Alias)
	if err != nil {
		return err
	}
	if err := f.Write(c.File, true); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already: it may be all that can read somebody's records", c.File)
	} else if err != nil {
		return err
	}
	fmt.Fprintln(e.stdout, k.ID)
	return nil
}

// addKey adds a key with aliases as a user gives them.
func addKey(f *kms.KeyringFile, aliases []string) (*kms.KeyringKey, error) {
	for i, a := range aliases {
		aliases[i] = strings.TrimPrefix(a, "alias/")
	}
	k, err := f.Add(time.Now(), aliases...)
	if err != nil {
		return nil, usageError{err}
	}
	return k, nil
}

// ensureKeyring makes a keyring unless there is one.
func ensureKeyring(path string) error {
	f := &kms.KeyringFile{}
	if _, err := addKey(f, nil); err != nil {
		return err
	}
	if err := f.Write(path, true); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// keyringAddCmd is `shardstream keyring add`.
type keyringAddCmd struct {
	File  string   `arg:"" help:"The keyring."`
	Alias []string `placeholder:"NAME" help:"Also call the key alias/NAME. Repeatable."`
}

func (c *keyringAddCmd) Run(e *env) error {
	f, err := kms.ReadKeyringFile(c.File)
	if err != nil {
		return err
	}
	k, err := addKey(f, c.Alias)
	if err != nil {
		return err
	}
	if err := f.Write(c.File, false); err != nil {
		return err
	}
	fmt.Fprintln(e.stdout, k.ID)
	return nil
}

// changeKey changes one key of a keyring.
func changeKey(path, keyID string, change func(*kms.KeyringFile, *kms.KeyringKey)) error {
	f, err := kms.ReadKeyringFile(path)
	if err != nil {
		return err
	}
	k := f.Find(keyID)
	if k == nil {
		return fmt.Errorf("keyring %s has no key %s", path, keyID)
	}
	change(f, k)
	return f.Write(path, false)
}

// keyringRotateCmd is `shardstream keyring rotate`.
type keyringRotateCmd struct {
	File string `arg:"" help:"The keyring."`
	Key  string `arg:"" help:"Id of a key, or alias/NAME."`
}

func (c *keyringRotateCmd) Run(*env) error {
	return changeKey(c.File, c.Key, func(_ *kms.KeyringFile, k *kms.KeyringKey) { k.Rotate(time.Now()) })
}

// keyringStateCmd is `shardstream keyring state`.
type keyringStateCmd struct {
	File  string `arg:"" help:"The keyring."`
	Key   string `arg:"" help:"Id of a key, or alias/NAME."`
	State string `arg:"" enum:"enabled,disabled,pending-deletion" help:"enabled, disabled or pending-deletion."`
}

func (c *keyringStateCmd) Run(*env) error {
	return changeKey(c.File, c.Key, func(_ *kms.KeyringFile, k *kms.KeyringKey) { k.State = kms.KeyState(c.State) })
}

// keyringDefaultCmd is `shardstream keyring default`.
type keyringDefaultCmd struct {
	File string `arg:"" help:"The keyring."`
	Key  string `arg:"" help:"Id of a key, or alias/NAME."`
}

func (c *keyringDefaultCmd) Run(*env) error {
	return changeKey(c.File, c.Key, func(f *kms.KeyringFile, k *kms.KeyringKey) { f.Default = k.ID })
}

// keyringListCmd is `shardstream keyring list`.
type keyringListCmd struct {
	File string `arg:"" help:"The keyring."`
}

func (c *keyringListCmd) Run(e *env) error {
	f, err := kms.ReadKeyringFile(c.File)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KEY\tSTATE\tVERSION\tCREATED\tALIASES")
	for _, k := range f.Keys {
		last := k.Versions[len(k.Versions)-1]
		var aliases []string
		if k.ID == f.Default {
			aliases = append(aliases, "alias/aws/kinesis")
		}
		for _, a := range k.Aliases {
			aliases = append(aliases, "alias/"+a)
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\n", k.ID, k.State, last.Version, last.Created.UTC().Format(time.RFC3339), strings.Join(aliases, ", "))
	}
	return w.Flush()
}
