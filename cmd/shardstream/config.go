package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"gopkg.in/yaml.v3"
)

// configFile resolves flags from the YAML file that --config names:
//
//	log-format: json            # for every command that has the flag
//	listen: 0.0.0.0:4567
//	dev:                        # only for "shardstream dev"
//	  stream: [orders:4, clicks]
//	cluster:
//	  recover: {broker: "10.0.0.1:7070"}
//
// A flag without an environment variable (--yes) is no setting, and not taken
// from the file either. The order is flag over environment over file: kong asks resolvers before it
// looks whether the value came from the environment, so this one stands back
// for a flag whose variable is set.
type configFile struct {
	loaded bool
	values map[string]any
	err    error // reported by run as the one line, without kong's prefix of a flag
}

var _ kong.Resolver = (*configFile)(nil)

// Validate has nothing to do: the file is checked when it is read.
func (f *configFile) Validate(*kong.Application) error { return nil }

// Resolve gives the file's value for a flag, nil if it has none.
func (f *configFile) Resolve(ctx *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if !f.loaded {
		f.loaded = true
		f.values, f.err = readConfig(ctx)
	}
	if f.err != nil || !isSetting(flag) {
		return nil, nil
	}
	for _, name := range flag.Envs {
		if _, set := os.LookupEnv(name); set {
			return nil, nil
		}
	}
	// The most particular section wins: the command's own, then its parents'.
	for n := ctx.Selected(); n != nil; n = n.Parent {
		if v, ok := section(f.values, n)[flag.Name]; ok {
			return flagValue(v), nil
		}
	}
	return nil, nil
}

// section gives the part of the file for a command, nil if there is none.
func section(values map[string]any, n *kong.Node) map[string]any {
	if n.Type == kong.CommandNode {
		sub, _ := section(values, n.Parent)[n.Name].(map[string]any)
		return sub
	}
	return values
}

// flagValue makes of a YAML value what the command line would give. Lists stay
// lists.
func flagValue(v any) any {
	switch v := v.(type) {
	case []any:
		words := make([]any, len(v))
		for i, w := range v {
			words[i] = fmt.Sprint(w)
		}
		return words
	case bool:
		return v
	}
	return fmt.Sprint(v)
}

func readConfig(ctx *kong.Context) (map[string]any, error) {
	path := ""
	for _, flag := range ctx.Model.Flags {
		if flag.Name == "config" {
			path, _ = ctx.FlagValue(flag).(string)
		}
	}
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		var pathErr *fs.PathError
		if errors.As(err, &pathErr) {
			err = pathErr.Err
		}
		return nil, fmt.Errorf("config file %s: %w", path, err)
	}
	values := map[string]any{}
	if err := yaml.Unmarshal(text, &values); err != nil {
		return nil, fmt.Errorf("config file %s: %s", path, strings.Join(strings.Fields(err.Error()), " "))
	}
	unknown := unknownKeys(values, ctx.Model.Node, "")
	if len(unknown) > 0 {
		slices.Sort(unknown)
		return nil, fmt.Errorf("config file %s: unknown key %s", path, strings.Join(unknown, ", "))
	}
	return values, nil
}

// unknownKeys names the keys that are neither a flag of the command or of one
// below it, nor a subcommand's section.
func unknownKeys(values map[string]any, n *kong.Node, prefix string) (unknown []string) {
next:
	for key, value := range values {
		for _, child := range n.Children {
			if child.Name != key {
				continue
			}
			switch sub := value.(type) {
			case nil:
				continue next
			case map[string]any:
				unknown = append(unknown, unknownKeys(sub, child, prefix+key+".")...)
				continue next
			}
		}
		if _, isMap := value.(map[string]any); isMap || value == nil || !hasFlag(n, key) {
			unknown = append(unknown, prefix+key)
		}
	}
	return unknown
}

// hasFlag reports whether the command, one above it or one below it has the flag.
func hasFlag(n *kong.Node, name string) bool {
	for p := n.Parent; p != nil; p = p.Parent {
		if hasOwnFlag(p, name) {
			return true
		}
	}
	if hasOwnFlag(n, name) {
		return true
	}
	return slices.ContainsFunc(n.Children, func(c *kong.Node) bool { return hasFlagBelow(c, name) })
}

func hasFlagBelow(n *kong.Node, name string) bool {
	return hasOwnFlag(n, name) ||
		slices.ContainsFunc(n.Children, func(c *kong.Node) bool { return hasFlagBelow(c, name) })
}

func hasOwnFlag(n *kong.Node, name string) bool {
	return slices.ContainsFunc(n.Flags, func(f *kong.Flag) bool { return f.Name == name && isSetting(f) })
}

// isSetting reports whether the file may hold the flag.
func isSetting(f *kong.Flag) bool { return f.Name != "config" && len(f.Envs) > 0 }
