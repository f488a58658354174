package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is set by the linker in releases (-X main.version=v1.2.3).
var version = "dev"

type versionCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// buildInfo says what this binary is.
type buildInfo struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Time     string `json:"commitTime,omitempty"` // of the commit, RFC 3339
	Modified bool   `json:"modified,omitempty"`   // built from a tree with changes
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func readBuildInfo() buildInfo {
	b := buildInfo{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

// short gives the version in a word.
func (b buildInfo) short() string {
	if b.Commit == "" {
		return b.Version
	}
	return b.Version + "-" + b.Commit[:min(7, len(b.Commit))]
}

func (c *versionCmd) Run(e *env) error {
	b := readBuildInfo()
	if c.JSON {
		return json.NewEncoder(e.stdout).Encode(b)
	}
	line := "shardstream " + b.Version
	if b.Commit != "" {
		line += " (commit " + b.Commit[:min(12, len(b.Commit))]
		if b.Modified {
			line += ", modified"
		}
		line += ")"
	}
	_, err := fmt.Fprintf(e.stdout, "%s %s %s\n", line, b.Go, b.Platform)
	return err
}
