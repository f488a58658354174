package broker

import (
	"fmt"
	"strings"

	pb "shardstream/proto/shardstream/v1"
)

// The commands that only a controller proposes.

func stopCommand(b *pb.Broker) *pb.Command {
	return &pb.Command{Op: &pb.Command_StopBroker{StopBroker: &pb.StopBroker{NodeId: b.NodeId, Incarnation: b.Incarnation}}}
}

func fenceCommand(f fence) *pb.Command {
	return &pb.Command{Op: &pb.Command_FenceBroker{FenceBroker: &pb.FenceBroker{NodeId: f.node, Incarnation: f.incarnation, Reason: f.reason}}}
}

func unfenceCommand(f fence) *pb.Command {
	return &pb.Command{Op: &pb.Command_UnfenceBroker{UnfenceBroker: &pb.UnfenceBroker{NodeId: f.node, Incarnation: f.incarnation}}}
}

func moveCommand(moves []*pb.ReplicaChange) *pb.Command {
	return &pb.Command{Op: &pb.Command_MoveLeaders{MoveLeaders: &pb.MoveLeaders{Moves: moves}}}
}

func dropCommand(replicas []*pb.ReplicaChange) *pb.Command {
	return &pb.Command{Op: &pb.Command_DropReplicas{DropReplicas: &pb.DropReplicas{Replicas: replicas}}}
}

func factorCommand(changes []*pb.FactorChange) *pb.Command {
	return &pb.Command{Op: &pb.Command_SetFactors{SetFactors: &pb.SetFactors{Changes: changes}}}
}

func addCommand(places []*pb.ReplicaPlace) *pb.Command {
	return &pb.Command{Op: &pb.Command_AddReplicas{AddReplicas: &pb.AddReplicas{Places: places}}}
}

func endRebalanceCommand() *pb.Command {
	return &pb.Command{Op: &pb.Command_Rebalance{Rebalance: &pb.Rebalance{End: true}}}
}

// fromOperator tells that a command is an operator's act, which any caller may
// have proposed: each is checked against the state when it is applied, and
// changes nothing that could not be changed back but what it names.
func fromOperator(c *pb.Command) bool {
	switch o := c.GetOp().(type) {
	case *pb.Command_DrainBroker, *pb.Command_UndrainBroker, *pb.Command_Rebalance, *pb.Command_RecoverShard:
		return true
	case *pb.Command_RemoveBroker:
		return !o.RemoveBroker.GetForget()
	}
	return false
}

// commandName is what a log line calls a command.
func commandName(c *pb.Command) string {
	name := fmt.Sprintf("%T", c.GetOp())
	return name[strings.LastIndexByte(name, '_')+1:]
}
