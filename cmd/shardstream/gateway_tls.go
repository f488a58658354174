package main

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"
)

// reloadedTLS gives a TLS configuration whose certificate is read again when one
// of its files has changed: certificates are renewed more often than gateways
// are restarted. A pair that cannot be read, as when only one of the files has
// been replaced so far, leaves the former in use.
func reloadedTLS(certPath, keyPath string, logger *slog.Logger) (*tls.Config, error) {
	r := &reloader{certPath: certPath, keyPath: keyPath, logger: logger}
	if err := r.load(); err != nil {
		return nil, err
	}
	return &tls.Config{GetCertificate: r.certificate, MinVersion: tls.VersionTLS12}, nil
}

// reloadCheck is how often the files are looked at, at most.
const reloadCheck = time.Second

type reloader struct {
	certPath, keyPath string
	logger            *slog.Logger

	mu       sync.Mutex // protects all below
	pair     *tls.Certificate
	loaded   [2]time.Time // modification times of the pair in use, or last tried
	lastLook time.Time
}

func (r *reloader) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.lastLook) >= reloadCheck {
		if err := r.loadLocked(); err != nil {
			r.logger.Error("the new TLS certificate can't be used, the former stays", "cert", r.certPath, "error", err)
		}
	}
	return r.pair, nil
}

func (r *reloader) load() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.loadLocked()
}

// loadLocked reads the pair if its files have changed since it last did.
func (r *reloader) loadLocked() error {
	r.lastLook = time.Now()
	cert, certErr := os.Stat(r.certPath)
	key, keyErr := os.Stat(r.keyPath)
	if err := errors.Join(certErr, keyErr); err != nil {
		return err
	}
	now := [2]time.Time{cert.ModTime(), key.ModTime()}
	if now == r.loaded {
		return nil
	}
	r.loaded = now
	pair, err := tls.LoadX509KeyPair(r.certPath, r.keyPath)
	if err != nil {
		return err
	}
	r.pair = &pair
	return nil
}
