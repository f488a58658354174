package judge

import (
	"fmt"
	"time"

	"github.com/anishathalye/porcupine"
)

// StreamCall is a call about a stream's existence.
type StreamCall int

// The calls.
const (
	CreateStream StreamCall = iota
	DeleteStream
	DescribeStream
)

// StreamAnswer is what a client heard.
type StreamAnswer int

// The answers.
const (
	NoAnswer   StreamAnswer = iota // it may have happened, or happen yet
	Done                           // of a create or delete
	Exists                         // create: the name is taken; describe: it is being made or there
	Disappears                     // describe: it is being deleted
	NotFound
)

// StreamOp is one call and its answer.
type StreamOp struct {
	Client           int
	Name             string
	Call             StreamCall
	Answer           StreamAnswer
	Called, Returned Time
}

// Unlinear is the check that metadata calls are linearizable: that each can be
// given one moment between its call and its return, so that all answers are
// those of calls made one after the other.
const Unlinear = "linearizable"

// The states of a name.
type nameState int

const (
	absent nameState = iota
	present
	disappearing // becomes absent at any time
)

var namesModel = porcupine.NondeterministicModel{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byName := make(map[string][]porcupine.Operation)
		for _, o := range history {
			name := o.Input.(StreamOp).Name
			byName[name] = append(byName[name], o)
		}
		var parts [][]porcupine.Operation
		for _, part := range byName {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() []any { return []any{absent} },
	Step: func(state, input, _ any) []any {
		op := input.(StreamOp)
		from := []nameState{state.(nameState)}
		if from[0] == disappearing {
			from = append(from, absent)
		}
		var to []any
		for _, s := range from {
			to = append(to, step(s, op)...)
		}
		return to
	},
	Equal: func(a, b any) bool { return a == b },
	DescribeOperation: func(input, _ any) string {
		op := input.(StreamOp)
		return fmt.Sprintf("%s %s: %s", [...]string{"create", "delete", "describe"}[op.Call], op.Name,
			[...]string{"no answer", "done", "exists", "disappears", "not found"}[op.Answer])
	},
}

// step gives the states that a call with its answer can lead to.
func step(s nameState, op StreamOp) []any {
	after := s
	var answer StreamAnswer
	switch op.Call {
	case CreateStream:
		if answer = Exists; s == absent {
			answer, after = Done, present
		}
	case DeleteStream:
		if answer = NotFound; s != absent {
			answer, after = Done, disappearing
		}
	case DescribeStream:
		answer = [...]StreamAnswer{absent: NotFound, present: Exists, disappearing: Disappears}[s]
	}
	switch op.Answer {
	case answer:
		return []any{after}
	case NoAnswer:
		return []any{s, after}
	}
	return nil
}

// CheckStreams says whether the calls were linearizable, and "" if they were. It
// gives up after a while, and says so.
func CheckStreams(ops []StreamOp, within time.Duration) string {
	var last Time
	for _, op := range ops {
		last = max(last, op.Returned)
	}
	history := make([]porcupine.Operation, len(ops))
	for i, op := range ops {
		returned := op.Returned
		if op.Answer == NoAnswer { // it may happen at any later time
			returned = last + 1
		}
		history[i] = porcupine.Operation{ClientId: op.Client, Input: op, Call: int64(op.Called), Return: int64(returned)}
	}
	model := namesModel.ToModel()
	switch porcupine.CheckOperationsTimeout(model, history, within) {
	case porcupine.Ok:
		return ""
	case porcupine.Unknown:
		return fmt.Sprintf("%d calls could not be judged in %s", len(ops), within)
	}
	for _, part := range namesModel.Partition(history) {
		if porcupine.CheckOperationsTimeout(model, part, within) == porcupine.Illegal {
			text := ""
			for _, o := range part {
				op := o.Input.(StreamOp)
				text += fmt.Sprintf("; [%s, %s] %s", op.Called, op.Returned, namesModel.DescribeOperation(op, nil))
			}
			return "no order of these calls gives these answers" + text
		}
	}
	return "no order of the calls gives their answers"
}
