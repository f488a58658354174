package deploy

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// unit is a unit file's settings by section and name.
type unit map[string]map[string]string

func parseUnit(text string) (unit, error) {
	u, section := unit{}, ""
	for i, line := range strings.Split(text, "\n") {
		name, value, assigns := strings.Cut(line, "=")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]"):
			section = strings.Trim(line, "[]")
			u[section] = map[string]string{}
		case !assigns || section == "":
			return nil, fmt.Errorf("line %d: %q", i+1, line)
		default:
			if _, twice := u[section][name]; twice {
				return nil, fmt.Errorf("line %d: %s twice", i+1, name)
			}
			u[section][name] = value
		}
	}
	return u, nil
}

// checkUnit checks a unit and the file of settings that goes with it.
func checkUnit(t *testing.T, name, text, settings string) (problems []string) {
	t.Helper()
	bad := func(format string, args ...any) {
		problems = append(problems, name+": "+fmt.Sprintf(format, args...))
	}
	u, err := parseUnit(text)
	if err != nil {
		return []string{err.Error()}
	}
	service := u["Service"]
	// systemd's own words have --flag and its value in two.
	words := strings.Fields(regexp.MustCompile(`(--\S+) ([^-\s]\S*)`).ReplaceAllString(service["ExecStart"], "$1=$2"))
	if len(words) == 0 || words[0] != "/usr/local/bin/shardstream" {
		return append(problems, "runs "+service["ExecStart"])
	}
	cmd, err := commandOf(words[1:])
	if err != nil {
		bad("%v", err)
	}
	problems = append(problems, cmd.unknownFlags(t)...)
	if cmd.name != name {
		bad("runs 'shardstream %s'", cmd.name)
	}
	if got := cmd.flags["config"]; got != "/etc/shardstream/"+name+".yaml" {
		bad("reads %s", got)
	}
	if stop, err := time.ParseDuration(service["TimeoutStopSec"]); err != nil || stop < cmd.shutdownTimeout(t)+5*time.Second {
		bad("TimeoutStopSec=%s (%v) is not above --shutdown-timeout", service["TimeoutStopSec"], err)
	}
	if service["Type"] != "exec" || service["Restart"] != "on-failure" || service["RestartPreventExitStatus"] != "2" || service["LimitNOFILE"] == "" {
		bad("want Type=exec, Restart=on-failure but for status 2, and LimitNOFILE")
	}
	if dir := cmd.flags["data-dir"]; name == "broker" && !strings.HasPrefix(dir, "/var/lib/"+service["StateDirectory"]+"/") {
		bad("the data directory %s is not in StateDirectory=%s", dir, service["StateDirectory"])
	}
	var config map[string]map[string]any
	if err := strictly(settings, &config); err != nil {
		return append(problems, err.Error())
	}
	for section, values := range config {
		for key := range values {
			if _, ok := flagsOf(t, name)[key]; !ok || section != name {
				bad("the settings have %s.%s, which is none", section, key)
			}
		}
	}
	return problems
}

func TestSystemd(t *testing.T) {
	for _, name := range []string{"broker", "gateway"} {
		text, settings := read(t, "deploy/systemd/shardstream-"+name+".service"), read(t, "deploy/systemd/"+name+".yaml")
		breakIt(t, text, func(text string) []string { return checkUnit(t, name, text, settings) }, []mistake{
			{"a flag that does not exist", "--shutdown-timeout 30s", "--stop-timeout 30s", "no flag --stop-timeout"},
			{"killed during the stop", "TimeoutStopSec=45s", "TimeoutStopSec=30s", "not above"},
			{"the other's settings", "/etc/shardstream/" + name, "/etc/shardstream/x", "reads /etc/shardstream/x"},
			{"a setting twice", "Type=exec", "Type=exec\nType=exec", "twice"},
			{"retried for ever", "RestartPreventExitStatus=2\n", "", "status 2"},
		})
		breakIt(t, settings, func(settings string) []string { return checkUnit(t, name, text, settings) }, []mistake{
			{"a key that is no flag", name + ":", name + ":\n  colour: blue", "colour"},
			{"another section", name + ":", "dev:", "the settings have dev."},
		})
	}
}

// TestSystemdVerify has systemd itself read the units, where it is there.
func TestSystemdVerify(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd-analyze on this machine")
	}
	dir := t.TempDir()
	for _, name := range []string{"shardstream-broker.service", "shardstream-gateway.service"} {
		// It looks whether the program is there, which it need not be.
		text := strings.ReplaceAll(read(t, "deploy/systemd/"+name), "/usr/local/bin/shardstream", program)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", "--recursive-errors=no", filepath.Join(dir, name)).CombinedOutput()
		// It tells of the machine's other units too.
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, name) {
				t.Errorf("%s", line)
			}
		}
		if err != nil {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
}
