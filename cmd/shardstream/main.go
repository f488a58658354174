// Command shardstream is the one binary of the project: the server in its
// forms, and the clients and tools that go with it.
//
// This package turns flags, environment and a configuration file into the
// Config structs of the other packages, handles signals, and tells in one place
// per subcommand what starts and stops in which order. It holds no behaviour of
// a broker or a gateway. The invariant it keeps: exit status 0 means asked to
// stop or done, 1 failure, 2 bad usage.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// Exit statuses, part of the command line's contract.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

// cli is the whole command line: every subcommand registers here, in the order
// in which help shows them. Each flag is also SHARDSTREAM_<FLAG> in the
// environment and a key in the file given with --config.
type cli struct {
	ConfigFile string `name:"config" placeholder:"FILE" help:"YAML file with flags as keys, for all commands or below a command's name."`
	LogFormat  string `enum:"text,json" default:"text" help:"Form of the log on stderr: text or json."`
	LogLevel   string `enum:"debug,info,warn,error" default:"info" help:"Least level logged: debug, info, warn or error."`

	Dev        devCmd        `cmd:"" help:"Run a whole single node: a durable Kinesis endpoint on this machine."`
	Gateway    gatewayCmd    `cmd:"" help:"Run a gateway: the Kinesis API in front of brokers."`
	Broker     brokerCmd     `cmd:"" help:"Run one storage node of a cluster."`
	Playground playgroundCmd `cmd:"" help:"Run a whole cluster on this machine, to try out."`
	Put        putCmd        `cmd:"" help:"Put lines from stdin into a stream."`
	Tail       tailCmd       `cmd:"" help:"Print a stream's records as they come."`
	Bench      benchCmd      `cmd:"" help:"Measure a Kinesis endpoint under load, and check what it stored."`
	Cluster    clusterCmd    `cmd:"" help:"Look after a cluster."`
	Stream     streamCmd     `cmd:"" help:"List and describe streams, with the placement of their shards."`
	Keyring    keyringCmd    `cmd:"" help:"Make and change a file of encryption keys."`
	Log        logCmd        `cmd:"" help:"Look at the data directory of a stopped node."`
	Version    versionCmd    `cmd:"" help:"Print the version."`
}

const description = `A streaming broker that speaks the API of Amazon Kinesis Data Streams.

Every flag can also be given in the environment (--data-dir as SHARDSTREAM_DATA_DIR)
and in a YAML file (--config FILE). A flag beats the environment, the environment beats the file.

Exit status: 0 done or asked to stop, 1 failure, 2 bad usage.`

// env is what a subcommand may use of the process around it. Tests give it
// pipes and their own context.
type env struct {
	ctx    context.Context // ends when the process is asked to stop
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	log    *slog.Logger
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The second signal kills: a stop that hangs must not need kill -9.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// usageError is a mistake in how the command was called: exit status 2.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// run is the whole program: it parses args, runs the command until it is done
// or ctx ends, and gives the exit status.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var c cli
	file := &configFile{}
	helped := false
	parser, err := kong.New(
		&c,
		kong.Name("shardstream"),
		kong.Description(description),
		kong.Writers(stdout, stderr),
		kong.DefaultEnvars("SHARDSTREAM"),
		kong.Resolvers(file),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true, WrapUpperBound: 100}),
		kong.Exit(func(int) { helped = true }),
	)
	if err != nil {
		fmt.Fprintf(stderr, "shardstream: %v\n", err)
		return exitFailure
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, err := parser.Parse(args)
	switch {
	case helped:
		return exitOK
	case file.err != nil:
		fmt.Fprintf(stderr, "shardstream: %v\n", file.err)
		return exitUsage
	case err != nil:
		return failUsage(stderr, err, selectedPath(err))
	}
	path := commandPath(command.Selected())
	e := &env{ctx: ctx, stdin: stdin, stdout: stdout, stderr: stderr, log: newLogger(stderr, c.LogFormat, c.LogLevel)}
	err = command.Run(e)
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return failUsage(stderr, err, path)
	case errors.Is(err, errSaid):
		return exitFailure
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitOK // asked to stop
	}
	fmt.Fprintf(stderr, "shardstream %s: %v\n", path, err)
	return exitFailure
}

func failUsage(stderr io.Writer, err error, path string) int {
	name := "shardstream"
	if path != "" {
		name += " " + path
	}
	fmt.Fprintf(stderr, "%s: %v (see '%s --help')\n", name, err, name)
	return exitUsage
}

// selectedPath names the subcommand in which parsing failed, "" if none was reached.
func selectedPath(err error) string {
	var parse *kong.ParseError
	if errors.As(err, &parse) && parse.Context != nil {
		return commandPath(parse.Context.Selected())
	}
	return ""
}

// commandPath gives "log verify" for that command, and "" for none.
func commandPath(n *kong.Node) string {
	path := ""
	for ; n != nil && n.Type == kong.CommandNode; n = n.Parent {
		if path != "" {
			path = " " + path
		}
		path = n.Name + path
	}
	return path
}

// newLogger makes the process's logger. Format and level are checked already.
func newLogger(w io.Writer, format, level string) *slog.Logger {
	var l slog.Level
	_ = l.UnmarshalText([]byte(level))
	options := &slog.HandlerOptions{Level: l}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
