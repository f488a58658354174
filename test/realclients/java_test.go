package realclients

import (
	"path/filepath"
	"strings"
	"testing"
)

// java gives the command line of a program of a module of test/clients/java. The
// heap is small, and the compiler the quick one: there are several at once.
func java(module, class string, options ...string) []string {
	target := repository("test", "clients", "java", module, "target")
	args := append([]string{"java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"}, options...)
	return append(args, "-cp", filepath.Join(target, module+".jar")+":"+filepath.Join(target, "lib", "*"), class)
}

// jarVersion gives the version of a library that a module runs with.
func jarVersion(t *testing.T, module, library string) string {
	t.Helper()
	found, _ := filepath.Glob(repository("test", "clients", "java", module, "target", "lib", library+"-[0-9]*.jar"))
	if len(found) != 1 {
		t.Fatalf("%s: not one jar of %s: %v", module, library, found)
	}
	return strings.TrimSuffix(strings.TrimPrefix(filepath.Base(found[0]), library+"-"), ".jar")
}
