package raftfsm

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	pb "shardstream/proto/shardstream/v1"
	"shardstream/stream"
)

// Apply gives the state after a command and the command's result. It depends
// on nothing but its arguments. A refused command changes nothing but the
// index, the cluster's time included.
//
// The command must be one that DecodeCommand accepts; Apply panics on one
// without a known op, since skipping it would let two nodes' states part.
func (s *State) Apply(index uint64, c *pb.Command) (*State, *pb.CommandResult) {
	d := newDraft(s, index, c.GetTimeMs())
	res := d.apply(c)
	res.Index = index
	if res.GetError() != pb.ErrorKind_ERROR_KIND_NONE {
		same := *s
		same.index = index
		return &same, res
	}
	return d.finish(), res
}

func (d *draft) apply(c *pb.Command) *pb.CommandResult {
	if init := c.GetInitCluster(); init != nil {
		return d.initCluster(init)
	}
	if d.cluster == nil {
		return refuse(stream.Unavailable, "the cluster is not initialised yet")
	}
	switch op := c.GetOp().(type) {
	case *pb.Command_RegisterBroker:
		return d.registerBroker(op.RegisterBroker)
	case *pb.Command_CreateStream:
		return d.createStream(op.CreateStream)
	case *pb.Command_ReplicasCreated:
		return d.replicasCreated(op.ReplicasCreated)
	case *pb.Command_ActivateStream:
		return d.activateStream(op.ActivateStream)
	case *pb.Command_DeleteStream:
		return d.deleteStream(op.DeleteStream)
	case *pb.Command_RemoveStream:
		return d.removeStream(op.RemoveStream)
	case *pb.Command_SetRetention:
		return d.setRetention(op.SetRetention)
	case *pb.Command_AddTags:
		return d.addTags(op.AddTags)
	case *pb.Command_RemoveTags:
		return d.removeTags(op.RemoveTags)
	case *pb.Command_MarkSuspect:
		return d.markSuspect(op.MarkSuspect)
	case *pb.Command_AcceptLoss:
		return d.acceptLoss(op.AcceptLoss)
	case *pb.Command_FenceBroker:
		return d.fenceBroker(op.FenceBroker)
	case *pb.Command_UnfenceBroker:
		return d.unfenceBroker(op.UnfenceBroker)
	case *pb.Command_StopBroker:
		return d.stopBroker(op.StopBroker)
	case *pb.Command_AlterInSync:
		return d.alterInSync(op.AlterInSync)
	case *pb.Command_MoveLeaders:
		return d.moveLeaders(op.MoveLeaders)
	case *pb.Command_AddReplicas:
		return d.addReplicas(op.AddReplicas)
	case *pb.Command_DropReplicas:
		return d.dropReplicas(op.DropReplicas)
	case *pb.Command_SetFactors:
		return d.setFactors(op.SetFactors)
	case *pb.Command_NoteFrames:
		return d.noteFrames(op.NoteFrames)
	case *pb.Command_Reshard:
		return d.reshard(op.Reshard)
	case *pb.Command_SealParents:
		return d.sealParents(op.SealParents)
	case *pb.Command_SealShards:
		return d.sealShards(op.SealShards)
	case *pb.Command_ExpireShards:
		return d.expireShards(op.ExpireShards)
	case *pb.Command_DrainBroker:
		return d.drainBroker(op.DrainBroker)
	case *pb.Command_UndrainBroker:
		return d.undrainBroker(op.UndrainBroker)
	case *pb.Command_RemoveBroker:
		return d.removeBroker(op.RemoveBroker)
	case *pb.Command_Rebalance:
		return d.rebalance(op.Rebalance)
	case *pb.Command_RecoverShard:
		return d.recoverShard(op.RecoverShard)
	case *pb.Command_RegisterConsumer:
		return d.registerConsumer(op.RegisterConsumer)
	case *pb.Command_DeregisterConsumer:
		return d.deregisterConsumer(op.DeregisterConsumer)
	case *pb.Command_AdvanceConsumers:
		return d.advanceConsumers(op.AdvanceConsumers)
	case *pb.Command_SetPolicy:
		return d.setPolicy(op.SetPolicy)
	case *pb.Command_UpdateStream:
		return d.updateStream(op.UpdateStream)
	case *pb.Command_EndUpdate:
		return d.endUpdate(op.EndUpdate)
	case *pb.Command_SetCommitment:
		return d.setCommitment(op.SetCommitment)
	case *pb.Command_NoteDemand:
		return d.noteDemand(op.NoteDemand)
	}
	panic(fmt.Sprintf("raftfsm: command at index %d has no known op", d.index))
}

// DecodeCommand reads a raft entry. It fails with Kind Corrupt for bytes that
// are no command, and for a command with an op or a field that this program
// does not know: applying a part of it would let states part between versions.
func DecodeCommand(data []byte) (*pb.Command, error) {
	const op = "raftfsm.DecodeCommand"
	c := new(pb.Command)
	if err := proto.Unmarshal(data, c); err != nil {
		return nil, stream.Errorf(stream.Corrupt, op, "%w", err)
	}
	m := c.ProtoReflect()
	field := m.WhichOneof(m.Descriptor().Oneofs().ByName("op"))
	if field == nil {
		return nil, stream.Errorf(stream.Corrupt, op, "no op that this program knows")
	}
	if len(m.GetUnknown()) > 0 || len(m.Get(field).Message().GetUnknown()) > 0 {
		return nil, stream.Errorf(stream.Corrupt, op, "%s has fields that this program does not know", field.Name())
	}
	return c, nil
}

// refuse makes the result of a command that the rules do not allow.
func refuse(kind stream.Kind, format string, args ...any) *pb.CommandResult {
	return &pb.CommandResult{Error: pb.ErrorKind(kind), Detail: fmt.Sprintf(format, args...)}
}

func wrongState(s *pb.Stream) *pb.CommandResult {
	res := refuse(stream.WrongState, "stream %q is %s", s.GetName(), s.GetStatus())
	res.Status = s.GetStatus()
	res.StreamId = s.GetId()
	return res
}

func figures(res *pb.CommandResult, current, limit uint64) *pb.CommandResult {
	res.Current, res.Limit = current, limit
	return res
}
