package deploy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// composeFile is the part of the Compose specification that we use. What else a
// file holds is refused.
type composeFile struct {
	Name     string
	Image    map[string]any `yaml:"x-image"`
	Broker   map[string]any `yaml:"x-broker"`
	Gateway  map[string]any `yaml:"x-gateway"`
	Services map[string]composeService
	Volumes  map[string]*struct{}
}

type composeService struct {
	Image string
	Build struct {
		Context, Dockerfile string
		Args                map[string]string
	}
	Command         []string
	Restart         string
	ReadOnly        bool     `yaml:"read_only"`
	CapDrop         []string `yaml:"cap_drop"`
	SecurityOpt     []string `yaml:"security_opt"`
	StopGracePeriod string   `yaml:"stop_grace_period"`
	Ulimits         struct{ Nofile int }
	Ports, Volumes  []string
	Healthcheck     struct {
		Test              []string
		Interval, Timeout string
		Retries           int
		StartPeriod       string `yaml:"start_period"`
	}
}

func checkCompose(t *testing.T, text string) (problems []string) {
	t.Helper()
	var f composeFile
	if err := strictly(text, &f); err != nil {
		return []string{err.Error()}
	}
	bad := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	count := map[string]int{}
	expect, published := "", map[string]string{}
	for name, s := range f.Services {
		cmd, err := commandOf(s.Command)
		if err != nil {
			bad("%s: %v", name, err)
			continue
		}
		count[cmd.name]++
		problems = append(problems, cmd.unknownFlags(t)...)
		if grace, err := time.ParseDuration(s.StopGracePeriod); err != nil || grace < cmd.shutdownTimeout(t)+5*time.Second {
			bad("%s: stop_grace_period %s (%v) is not above --shutdown-timeout %s", name, s.StopGracePeriod, err, cmd.shutdownTimeout(t))
		}
		if want := []string{"CMD", "/healthcheck", "http://127.0.0.1:" + cmd.port(t, "http-listen") + "/readyz"}; !slices.Equal(s.Healthcheck.Test, want) {
			bad("%s: its health check is %q, want %q", name, s.Healthcheck.Test, want)
		}
		for _, p := range s.Ports {
			if !strings.HasPrefix(p, "127.0.0.1:") || !strings.HasSuffix(p, ":"+cmd.port(t, "listen")) {
				bad("%s: publishes %s, want the Kinesis API on loopback", name, p)
			}
			if other := published[p]; other != "" {
				bad("%s and %s publish %s", name, other, p)
			}
			published[p] = name
		}
		for _, flag := range []string{"join", "brokers"} {
			if list, ok := cmd.flags[flag]; ok {
				problems = append(problems, checkPeers(t, f, name, flag, list)...)
			}
		}
		if cmd.name != "broker" {
			continue
		}
		expect = cmd.flags["bootstrap-expect"]
		if cmd.flags["node-id"] != name || cmd.flags["advertise"] != name {
			bad("%s: calls itself %s and %s", name, cmd.flags["node-id"], cmd.flags["advertise"])
		}
		_, declared := f.Volumes[name]
		if !declared || !slices.Equal(s.Volumes, []string{name + ":/var/lib/shardstream"}) {
			bad("%s: has volumes %v, want its own", name, s.Volumes)
		}
	}
	if count["broker"] != 3 || count["gateway"] != 2 || expect != "3" {
		bad("%v with --bootstrap-expect=%s, want three brokers and two gateways", count, expect)
	}
	return problems
}

// checkPeers checks a list of brokers: all of them, with the port that is meant.
func checkPeers(t *testing.T, f composeFile, who, flag, list string) (problems []string) {
	t.Helper()
	port := command{name: "broker"}.port(t, map[string]string{"join": "gossip-listen", "brokers": "grpc-listen"}[flag])
	var want []string
	for name, s := range f.Services {
		if len(s.Command) > 0 && s.Command[0] == "broker" {
			want = append(want, name+":"+port)
		}
	}
	slices.Sort(want)
	if list != strings.Join(want, ",") {
		problems = append(problems, fmt.Sprintf("%s: --%s=%s, want %s", who, flag, list, strings.Join(want, ",")))
	}
	return problems
}

func TestCompose(t *testing.T) {
	breakIt(t, read(t, "deploy/compose.yaml"), func(text string) []string { return checkCompose(t, text) }, []mistake{
		{"an unknown key", "stop_grace_period", "stop_grace", "stop_grace"},
		{"a flag that does not exist", "--advertise=", "--announce=", "no flag --announce"},
		{"killed during the hand-over", "stop_grace_period: 45s", "stop_grace_period: 10s", "not above --shutdown-timeout"},
		{"two with one name", "--node-id=broker-2", "--node-id=broker-1", "calls itself broker-1"},
		{"one disk for two", `volumes: ["broker-3:`, `volumes: ["broker-2:`, "want its own"},
		{"gRPC for gossip", "broker-3:7072", "broker-3:7070", "--join="},
		{"gossip for gRPC", "broker-2:7070", "broker-2:7072", "--brokers="},
		{"open to the world", "127.0.0.1:4567:4567", "4567:4567", "on loopback"},
		{"the same port twice", "127.0.0.1:4568:4567", "127.0.0.1:4567:4567", "publish 127.0.0.1:4567:4567"},
		{"another admin port", "http://127.0.0.1:7083/readyz", "http://127.0.0.1:7073/readyz", "its health check"},
		{"two to expect", "--bootstrap-expect=3", "--bootstrap-expect=2", "--bootstrap-expect=2"},
	})
}
