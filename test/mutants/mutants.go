// Package mutants takes protections out of the code for tests that must notice.
// It does so at build time, by an overlay of changed files: the product holds no
// trace of it.
package mutants

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Mutant is the code without one protection.
type Mutant struct {
	Name  string
	Rule  string // what is left out, with the invariant that it keeps
	Edits []Edit
}

// Edit is a file of the repository, a text that stands in it exactly once, and
// the text that takes its place.
type Edit [3]string

// Overlay writes the changed files into a directory and gives the file for the
// go command's -overlay. Its error says which edit does not fit the code any
// more.
func (m Mutant) Overlay(root, dir string) (file string, err error) {
	overlay := struct{ Replace map[string]string }{make(map[string]string)}
	texts := make(map[string]string)
	for _, e := range m.Edits {
		name, before, after := e[0], e[1], e[2]
		path := filepath.Join(root, name)
		text, ok := texts[path]
		if !ok {
			raw, err := os.ReadFile(path)
			if err != nil {
				return "", err
			}
			text = string(raw)
		}
		if n := strings.Count(text, before); n != 1 {
			return "", fmt.Errorf("%s: %q stands %d times in %s: the mutant must follow the code", m.Name, before, n, name)
		}
		texts[path] = strings.Replace(text, before, after, 1)
	}
	for path, text := range texts {
		changed := filepath.Join(dir, fmt.Sprintf("%s-%d.go", m.Name, len(overlay.Replace)))
		if err := os.WriteFile(changed, []byte(text), 0o644); err != nil {
			return "", err
		}
		overlay.Replace[path] = changed
	}
	raw, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	file = filepath.Join(dir, m.Name+"-overlay.json")
	return file, os.WriteFile(file, raw, 0o644)
}
