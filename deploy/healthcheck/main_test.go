package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			http.Error(w, "starting: reading the disk", http.StatusServiceUnavailable)
		}
	}))
	defer s.Close()
	if err := check(t.Context(), s.URL+"/healthz"); err != nil {
		t.Errorf("healthy: %v", err)
	}
	if err := check(t.Context(), s.URL+"/readyz"); err == nil || !strings.Contains(err.Error(), "503") || !strings.Contains(err.Error(), "reading the disk") {
		t.Errorf("not ready: %v; want the status and the server's words", err)
	}
	s.Close()
	if err := check(t.Context(), s.URL+"/healthz"); err == nil {
		t.Error("nobody listens: no error")
	}
}
