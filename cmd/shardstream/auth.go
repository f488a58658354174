package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"shardstream/gateway"
	"shardstream/gateway/credentials"
)

// authFlags say who may call a process that serves the Kinesis API.
type authFlags struct {
	Auth        string `enum:"none,sigv4" default:"none" help:"Who may call: anybody (none), or who signs with an access key of --credentials (sigv4)."`
	Credentials string `placeholder:"FILE" help:"YAML file of access keys and what each may do. Read again when it changes."`
	AuthRegion  string `name:"auth-region" placeholder:"REGION" help:"The one region that signatures may be for (default: any)."`
}

// open reads the credentials file; nil if nobody is asked for any.
func (f *authFlags) open(logger *slog.Logger) (*credentialsFile, error) {
	switch {
	case f.Auth == "none" && f.Credentials != "":
		return nil, usagef("--credentials %s: nobody would be asked for them: give --auth sigv4 too", f.Credentials)
	case f.Auth == "none" && f.AuthRegion != "":
		return nil, usagef("--auth-region %s: give --auth sigv4 too", f.AuthRegion)
	case f.Auth == "none":
		return nil, nil
	case f.Credentials == "":
		return nil, usagef("--auth sigv4 needs --credentials FILE, with the access keys that may call")
	}
	file := &credentialsFile{path: f.Credentials, logger: logger}
	if err := file.load(); err != nil {
		return nil, usagef("--credentials %s: %w", f.Credentials, err)
	}
	return file, nil
}

// configure makes a gateway ask for signatures, if there is a file.
func (f *authFlags) configure(cfg *gateway.Config, file *credentialsFile) {
	if file != nil {
		cfg.Credentials, cfg.SigningRegion = file.current.Load, f.AuthRegion
	}
}

// warnIfOpen says what it means that others than this machine reach a gateway
// that asks nobody.
func (f *authFlags) warnIfOpen(at net.Addr, logger *slog.Logger) {
	if f.Auth == "none" && !isLoopback(at) {
		logger.Warn("ANYONE WHO REACHES THIS PORT CAN READ, WRITE AND DELETE EVERY STREAM: requests are not authenticated. Use --auth sigv4, keep it behind a firewall, or listen on 127.0.0.1",
			"listen", at.String())
	}
}

// credentialsCheck is how often the credentials file is read again. It is small,
// and times of change are not to be trusted: secrets of Kubernetes are swapped
// by a link.
const credentialsCheck = 2 * time.Second

// credentialsFile is a credentials file whose latest good content is in force.
type credentialsFile struct {
	path    string
	logger  *slog.Logger
	current atomic.Pointer[credentials.Set]

	// Of whoever loads: open first, the watch then.
	text   []byte // as last read, good or not
	failed string // the last complaint about the file
}

// load takes the file up if it has changed.
func (f *credentialsFile) load() error {
	text, err := os.ReadFile(f.path)
	if err != nil {
		var pathErr *fs.PathError
		if errors.As(err, &pathErr) {
			err = pathErr.Err
		}
		return err
	}
	if f.text != nil && bytes.Equal(text, f.text) {
		return nil
	}
	f.text = append([]byte{}, text...)
	set, err := credentials.Parse(text)
	if err != nil {
		return err
	}
	if info, err := os.Stat(f.path); err == nil && info.Mode().Perm()&0o004 != 0 {
		f.logger.Warn("everybody on this machine can read the secret keys: chmod o-r the credentials file", "file", f.path)
	}
	f.current.Store(set)
	return nil
}

// watch loads the file at every tick until stop, which waits for its end.
func (f *credentialsFile) watch(every time.Duration) (stop func()) {
	if f == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				f.again()
			}
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

// again loads the file, and tells once what comes of a change.
func (f *credentialsFile) again() {
	before := f.current.Load()
	err := f.load()
	switch now := f.current.Load(); {
	case err != nil && err.Error() != f.failed:
		f.failed = err.Error()
		f.logger.Error("the credentials file can't be used, the former stays in force", "file", f.path, "error", err)
	case now != before:
		f.failed = ""
		f.logger.Info("the credentials file has changed and is in force", "file", f.path, "access_keys", now.Len())
	}
}
