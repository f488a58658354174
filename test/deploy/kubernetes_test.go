package deploy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"
)

// object is a manifest, as far as the checks look at it. The schema has seen
// the rest.
type object struct {
	APIVersion, Kind string
	Metadata         struct {
		Name, Namespace string
		Labels          map[string]string
	}
	Spec struct {
		// Of a Service.
		ClusterIP                string
		PublishNotReadyAddresses bool
		Ports                    []struct {
			Name, TargetPort, Protocol string
			Port                       int
		}
		Selector json.RawMessage // of a Service the labels themselves
		// Of a StatefulSet or Deployment.
		ServiceName, PodManagementPolicy string
		Replicas                         int
		Template                         struct {
			Metadata struct{ Labels, Annotations map[string]string }
			Spec     podSpec
		}
		VolumeClaimTemplates []struct{ Metadata struct{ Name string } }
		// Of a PodDisruptionBudget.
		MaxUnavailable int
		// Of a NetworkPolicy.
		PodSelector struct{ MatchLabels map[string]string }
		Ingress     []struct {
			Ports []struct{ Port, Protocol string }
		}
	}
}

type podSpec struct {
	TerminationGracePeriodSeconds int
	EnableServiceLinks            *bool
	Containers                    []container
}

type container struct {
	Name, Image string
	Args        []string
	Env         []struct {
		Name, Value string
		ValueFrom   struct{ FieldRef struct{ FieldPath string } }
	}
	Ports []struct {
		Name, Protocol string
		ContainerPort  int
	}
	Lifecycle struct {
		PreStop struct{ Sleep struct{ Seconds int } }
	}
	LivenessProbe, ReadinessProbe *struct {
		HTTPGet                         struct{ Path, Port string }
		PeriodSeconds, FailureThreshold int
	}
	Resources    struct{ Limits map[string]string }
	VolumeMounts []struct{ Name, MountPath string }
}

func (o object) String() string { return o.Kind + " " + o.Metadata.Name }

// selector gives the labels that a Service, StatefulSet, Deployment or budget selects.
func (o object) selector() map[string]string {
	var nested struct{ MatchLabels map[string]string }
	if o.Kind != "Service" {
		_ = json.Unmarshal(o.Spec.Selector, &nested) // the schema has seen it
		return nested.MatchLabels
	}
	var labels map[string]string
	_ = json.Unmarshal(o.Spec.Selector, &labels)
	return labels
}

// schemas validates manifests by their kind.
type schemas map[string]*jsonschema.Schema

func kubernetesSchemas(t *testing.T) schemas {
	t.Helper()
	const path = "schemas/kubernetes-1.30.json"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource(path, doc); err != nil {
		t.Fatal(err)
	}
	s := schemas{}
	for kind := range doc.(map[string]any)["kinds"].(map[string]any) {
		pointer := path + "#/kinds/" + strings.ReplaceAll(kind, "/", "~1")
		if s[kind], err = compiler.Compile(pointer); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// parse gives a document's object, and what is wrong with it by its schema.
func (s schemas) parse(document string) (o object, problems []string) {
	var value any
	if err := yaml.Unmarshal([]byte(document), &value); err != nil {
		return o, []string{err.Error()}
	}
	text, err := json.Marshal(value)
	if err != nil {
		return o, []string{err.Error()}
	}
	var head struct{ APIVersion, Kind string }
	if err := json.Unmarshal(text, &head); err != nil {
		return o, []string{err.Error()}
	}
	schema := s[head.APIVersion+"/"+head.Kind]
	if schema == nil {
		return o, []string{fmt.Sprintf("no schema of %s/%s", head.APIVersion, head.Kind)}
	}
	instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return o, []string{err.Error()}
	}
	if err := schema.Validate(instance); err != nil {
		return o, []string{fmt.Sprintf("%s: %v", head.Kind, err)}
	}
	if err := json.Unmarshal(text, &o); err != nil {
		return o, []string{fmt.Sprintf("%s: %v", head.Kind, err)}
	}
	return o, nil
}

// checkManifests checks all manifests together, as they are applied together.
func checkManifests(t *testing.T, s schemas, text string) (problems []string) {
	t.Helper()
	var all []object
	for _, d := range documents(text) {
		o, found := s.parse(d)
		if len(found) > 0 {
			return found
		}
		if o.Metadata.Namespace != "" {
			problems = append(problems, o.String()+" names a namespace")
		}
		all = append(all, o)
	}
	workloads := 0
	for _, o := range all {
		if o.Kind == "StatefulSet" || o.Kind == "Deployment" {
			workloads++
			problems = append(problems, checkWorkload(t, o, all)...)
		}
	}
	if workloads != 2 {
		problems = append(problems, fmt.Sprintf("%d workloads, not a StatefulSet and a Deployment", workloads))
	}
	return problems
}

func checkWorkload(t *testing.T, w object, all []object) (problems []string) {
	t.Helper()
	bad := func(format string, args ...any) {
		problems = append(problems, w.String()+": "+fmt.Sprintf(format, args...))
	}
	labels, pod := w.Spec.Template.Metadata.Labels, w.Spec.Template.Spec
	if !maps.Equal(w.selector(), labels) {
		bad("selects %v, its pods have %v", w.selector(), labels)
	}
	if pod.EnableServiceLinks == nil || *pod.EnableServiceLinks {
		bad("variables of Services would be taken for settings")
	}
	if len(pod.Containers) != 1 {
		bad("%d containers", len(pod.Containers))
		return problems
	}
	c := pod.Containers[0]
	cmd, err := commandOf(c.Args)
	if err != nil {
		bad("%v", err)
	}
	problems = append(problems, cmd.unknownFlags(t)...)
	for _, e := range c.Env {
		if f := settingFlag(e.Name); f != "" {
			if _, ok := flagsOf(t, cmd.name)[f]; !ok {
				bad("%s stands for no flag of 'shardstream %s'", e.Name, cmd.name)
			}
		}
		if e.Name == "GOMEMLIMIT" {
			problems = append(problems, checkMemory(w.String(), e.Value, c.Resources.Limits["memory"])...)
		}
	}

	preStop := time.Duration(c.Lifecycle.PreStop.Sleep.Seconds) * time.Second
	if least := preStop + cmd.shutdownTimeout(t) + 5*time.Second; time.Duration(pod.TerminationGracePeriodSeconds)*time.Second < least {
		bad("is killed after %d s, preStop, --shutdown-timeout and a margin need %s", pod.TerminationGracePeriodSeconds, least)
	}
	problems = append(problems, checkPorts(t, w, c, cmd, all)...)
	problems = append(problems, checkProbes(w, c)...)

	for _, o := range all {
		if o.Kind == "PodDisruptionBudget" && maps.Equal(o.selector(), labels) {
			if o.Spec.MaxUnavailable != 1 {
				bad("its budget lets %d be taken at once", o.Spec.MaxUnavailable)
			}
			labels = nil // found
		}
	}
	if labels != nil {
		bad("has no PodDisruptionBudget")
	}
	if cmd.name == "broker" {
		problems = append(problems, checkBroker(w, c, cmd, all)...)
	}
	if brokers, ok := cmd.flags["brokers"]; ok && !serviceHas(all, brokers, "grpc") {
		bad("--brokers=%s is no Service's port of gRPC", brokers)
	}
	return problems
}

// checkBroker checks what the life of a cluster hangs on.
func checkBroker(w object, c container, cmd command, all []object) (problems []string) {
	bad := func(format string, args ...any) {
		problems = append(problems, w.String()+": "+fmt.Sprintf(format, args...))
	}
	if w.Kind != "StatefulSet" || w.Spec.PodManagementPolicy != "Parallel" {
		bad("its first pod would wait for itself: want a StatefulSet with podManagementPolicy Parallel")
	}
	if cmd.flags["bootstrap-expect"] != strconv.Itoa(w.Spec.Replicas) {
		bad("--bootstrap-expect=%s with %d replicas", cmd.flags["bootstrap-expect"], w.Spec.Replicas)
	}
	if !serviceHas(all, cmd.flags["join"], "gossip") {
		bad("--join=%s is no Service's port of gossip", cmd.flags["join"])
	}
	headless := false
	for _, o := range all {
		if o.Kind == "Service" && o.Metadata.Name == w.Spec.ServiceName {
			headless = o.Spec.ClusterIP == "None" && o.Spec.PublishNotReadyAddresses && maps.Equal(o.selector(), w.selector())
		}
	}
	if !headless {
		bad("its Service %s must be headless, select it, and publish what is not ready", w.Spec.ServiceName)
	}
	env := map[string]string{}
	for _, e := range c.Env {
		env["$("+e.Name+")"] = e.ValueFrom.FieldRef.FieldPath
	}
	if got := env[cmd.flags["node-id"]]; got != "metadata.name" {
		bad("--node-id=%s is %q, want the pod's name", cmd.flags["node-id"], got)
	}
	if got := env[cmd.flags["advertise"]]; got != "status.podIP" {
		bad("--advertise=%s is %q, want the pod's address", cmd.flags["advertise"], got)
	}
	mounted := slices.ContainsFunc(c.VolumeMounts, func(m struct{ Name, MountPath string }) bool {
		return strings.HasPrefix(cmd.flags["data-dir"], m.MountPath+"/") &&
			len(w.Spec.VolumeClaimTemplates) == 1 && w.Spec.VolumeClaimTemplates[0].Metadata.Name == m.Name
	})
	if !mounted {
		bad("--data-dir=%s is not below the claimed volume", cmd.flags["data-dir"])
	}
	return problems
}

// listens gives the flags by which each command listens, by the name of the port.
var listens = map[string]map[string]string{
	"broker":  {"grpc": "grpc-listen", "raft": "raft-listen", "gossip": "gossip-listen", "gossip-udp": "gossip-listen", "admin": "http-listen"},
	"gateway": {"kinesis": "listen", "admin": "http-listen"},
}

func checkPorts(t *testing.T, w object, c container, cmd command, all []object) (problems []string) {
	t.Helper()
	bad := func(format string, args ...any) {
		problems = append(problems, w.String()+": "+fmt.Sprintf(format, args...))
	}
	ports := map[string]string{} // protocol by name
	for _, p := range c.Ports {
		ports[p.Name] = p.Protocol
		flag, ok := listens[cmd.name][p.Name]
		if !ok {
			bad("port %s is none of 'shardstream %s'", p.Name, cmd.name)
			continue
		}
		if got := cmd.port(t, flag); got != strconv.Itoa(p.ContainerPort) {
			bad("port %s is %d, --%s is %s", p.Name, p.ContainerPort, flag, got)
		}
		if udp := p.Protocol == "UDP"; udp != (p.Name == "gossip-udp") {
			bad("port %s has protocol %q", p.Name, p.Protocol)
		}
	}
	if len(ports) != len(listens[cmd.name]) {
		bad("has ports %v, want those of %v", ports, listens[cmd.name])
	}
	if got := w.Spec.Template.Metadata.Annotations["prometheus.io/port"]; got != cmd.port(t, "http-listen") {
		bad("Prometheus is sent to port %s", got)
	}
	for _, o := range all {
		switch {
		case o.Kind == "Service" && maps.Equal(o.selector(), w.selector()):
			for _, p := range o.Spec.Ports {
				if protocol, ok := ports[p.TargetPort]; !ok || protocol != p.Protocol {
					bad("%s sends to %s %s, which the pod does not have", o, p.Protocol, p.TargetPort)
				}
			}
		case o.Kind == "NetworkPolicy" && maps.Equal(o.Spec.PodSelector.MatchLabels, w.selector()):
			open := map[string]string{}
			for _, in := range o.Spec.Ingress {
				for _, p := range in.Ports {
					open[p.Port] = p.Protocol
				}
			}
			if !maps.Equal(open, ports) {
				bad("%s opens %v, the pod has %v", o, open, ports)
			}
		}
	}
	return problems
}

func checkProbes(w object, c container) (problems []string) {
	bad := func(format string, args ...any) {
		problems = append(problems, w.String()+": "+fmt.Sprintf(format, args...))
	}
	switch l := c.LivenessProbe; {
	case l == nil || l.HTTPGet.Path != "/healthz" || l.HTTPGet.Port != "admin":
		bad("its liveness is not /healthz of the admin port")
	case l.PeriodSeconds*l.FailureThreshold < 30:
		bad("it is killed after %d s without an answer", l.PeriodSeconds*l.FailureThreshold)
	}
	if r := c.ReadinessProbe; r == nil || r.HTTPGet.Path != "/readyz" || r.HTTPGet.Port != "admin" {
		bad("its readiness is not /readyz of the admin port")
	}
	return problems
}

// checkMemory compares GOMEMLIMIT with the container's limit.
func checkMemory(who, soft, hard string) []string {
	mebibytes := func(s string) float64 {
		for suffix, factor := range map[string]float64{"MiB": 1, "GiB": 1024, "Mi": 1, "Gi": 1024} {
			if number, ok := strings.CutSuffix(s, suffix); ok {
				if n, err := strconv.ParseFloat(number, 64); err == nil {
					return n * factor
				}
			}
		}
		return 0
	}
	if share := mebibytes(soft) / mebibytes(hard); !(share >= 0.8 && share <= 0.9) {
		return []string{fmt.Sprintf("%s: GOMEMLIMIT %s of %s, want some 85 %%", who, soft, hard)}
	}
	return nil
}

// serviceHas tells whether NAME:PORT is a Service's port of that name.
func serviceHas(all []object, address, port string) bool {
	for _, o := range all {
		for _, p := range o.Spec.Ports {
			if o.Kind == "Service" && p.Name == port && address == o.Metadata.Name+":"+strconv.Itoa(p.Port) {
				return true
			}
		}
	}
	return false
}

// manifests gives all of the kustomization's files, as one text.
func manifests(t *testing.T) string {
	t.Helper()
	const dir = "deploy/kubernetes"
	var k struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Resources  []string
		Images     []struct {
			Name    string
			NewName string `yaml:"newName"`
			NewTag  string `yaml:"newTag"`
		}
	}
	if err := strictly(read(t, dir+"/kustomization.yaml"), &k); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(root, dir, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if name := filepath.Base(f); name != "kustomization.yaml" && !slices.Contains(k.Resources, name) {
			t.Errorf("kustomization.yaml does not name %s", name)
		}
	}
	var texts []string
	for _, r := range k.Resources {
		texts = append(texts, read(t, dir+"/"+r))
	}
	return strings.Join(texts, "---\n")
}

func TestKubernetes(t *testing.T) {
	s := kubernetesSchemas(t)
	breakIt(t, manifests(t), func(text string) []string { return checkManifests(t, s, text) }, []mistake{
		{"no YAML", "kind: StatefulSet", "kind: [", "did not find"},
		{"an anchor of another document", "matchLabels: *labels\n---", "matchLabels: *lables\n---", "unknown anchor"},
		{"a doubled key", "  replicas: 3", "  replicas: 3\n  replicas: 3", "already defined"},
		{"an unknown key", "podManagementPolicy: Parallel", "podManagmentPolicy: Parallel", "podManagmentPolicy"},
		{"a word for a number", "minReadySeconds: 20", "minReadySeconds: 20s", "minReadySeconds"},
		{"an empty field", "  replicas: 3", "  replicas:", "replicas"},
		{"a required field is missing", "  serviceName: shardstream-broker\n", "", "serviceName"},
		{"another version", "apiVersion: apps/v1", "apiVersion: apps/v1beta1", "no schema"},
		{"a namespace", "metadata:\n  name: shardstream\n", "metadata:\n  name: shardstream\n  namespace: default\n", "namespace"},
		{"a flag that does not exist", "--bootstrap-expect=", "--expect=", "no flag --expect"},
		{"a variable that does not exist", "SHARDSTREAM_ZONE", "SHARDSTREAM_ZONES", "SHARDSTREAM_ZONES stands for no flag"},
		{"one by one", "podManagementPolicy: Parallel", "podManagementPolicy: OrderedReady", "would wait for itself"},
		{"more replicas than expected", "replicas: 3", "replicas: 5", "with 5 replicas"},
		{"only the ready are published", "publishNotReadyAddresses: true", "publishNotReadyAddresses: false", "must be headless"},
		{"the wrong port to join", "--join=shardstream-broker:7072", "--join=shardstream-broker:7070", "no Service's port of gossip"},
		{"the wrong brokers", "--brokers=shardstream-broker:7070", "--brokers=shardstream:7070", "no Service's port of gRPC"},
		{"another port than the flag's", "containerPort: 7071", "containerPort: 7171", "--raft-listen is 7071"},
		{"gossip without UDP", "{name: gossip-udp, containerPort: 7072, protocol: UDP}", "{name: gossip-udp, containerPort: 7072}", "gossip-udp"},
		{"a Service to no port", "targetPort: kinesis", "targetPort: http", "does not have"},
		{"a port that nobody may reach", "        - {port: raft}\n", "", "opens"},
		{"killed during the hand-over", "terminationGracePeriodSeconds: 45", "terminationGracePeriodSeconds: 30", "is killed after 30 s"},
		{"a longer stop than the grace", "--shutdown-timeout=30s", "--shutdown-timeout=60s", "is killed after 45 s"},
		{"liveness by the cluster", "path: /healthz", "path: /readyz", "liveness"},
		{"impatient", "failureThreshold: 6", "failureThreshold: 1", "is killed after 10 s"},
		{"no readiness", "readinessProbe:", "startupProbe:", "readiness"},
		{"two at once", "maxUnavailable: 1\n", "maxUnavailable: 2\n", "lets 2 be taken"},
		{"no budget", "kind: PodDisruptionBudget\nmetadata:\n  name: shardstream-broker", "kind: Service\nmetadata:\n  name: shardstream-broker", "no schema"},
		{"data in the container", "--data-dir=/var/lib/shardstream/data", "--data-dir=/data", "not below the claimed volume"},
		{"the name for the address", "--advertise=$(POD_IP)", "--advertise=$(POD_NAME)", "want the pod's address"},
		{"more memory than there is", "GOMEMLIMIT\n              value: 3480MiB", "GOMEMLIMIT\n              value: 8GiB", "want some 85 %"},
		{"variables of Services", "enableServiceLinks: false", "enableServiceLinks: true", "taken for settings"},
	})
}
