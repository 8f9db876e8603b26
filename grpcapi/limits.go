package grpcapi

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/koii-network/scale/dag/audit"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// Limits bound what callers can take of a node. A zero field has its default. A limit
// that is reached is ErrLimit (RESOURCE_EXHAUSTED), or ErrTooSlow where it is one of time;
// what is wrong with one request alone is store.ErrInvalid.
//
// # Memory
//
// A node on two cores is to stay below 512 MiB, whatever its callers do. Besides the engine
// (index and caches some 100 MiB, the pools of all puts together 60 MiB) these take memory:
//
//   - Requests that have arrived and are not consumed: ReceiveBytes, 96 MiB. What a stream
//     can hold is its window of 256 KiB, and once its handler asks for the next message, that
//     message. Every put, upload and commit at a time (Writes, 64) with a message of 1 MiB
//     and a full window is 80 MiB; those that wait for their turn (WriteQueue, 64) hold
//     windows of 16 MiB. Windows are static: those that grow with the connection's
//     bandwidth reach 16 MiB a stream. Messages of 4 MiB on all of 512 calls would be 2 GiB;
//     so beyond ReceiveBytes connections are read no further until something has been
//     consumed, new calls are refused, and the calls that have waited longest for their caller
//     are ended.
//   - Answers that are being made or that their callers have not taken: SendBytes, 64 MiB.
//     Room for a large one is reserved before it is made: 1 MiB for a page of a tree, 660 KiB
//     for a call that reads data, up to 6 MiB for a challenge; over HTTP twice that, for JSON.
//     Small ones count when they are encoded, with 4 KiB for what the transport has besides,
//     and a quarter of the room is for them alone. Who finds none waits, WriteWait, and is
//     refused then. The transport keeps an answer after its call has ended, until it has gone
//     to the caller; so the node closes connections, those first that hold most, whose
//     callers take less than MinRate for 5 s while others wait.
//   - Of proofs with a manifest, one at a time above 1 MiB, until it has been taken: their names
//     have up to SendBytes, and three times that while the proof is made. 200 MiB, if there is
//     such a dataset; larger ones are refused.
//   - Calls that have arrived: the gate lets Calls of them run, and four times as many may be
//     on their way in and out, each with a goroutine and what it ends with. 50 MiB. A connection
//     that does not take 16 KiB of statuses is read no further, and above 16 MiB of them in
//     all calls are refused.
//   - What the transport refuses before a call arrives: some 3 MiB for a connection of a
//     stranger who takes nothing, see strangerRead; they are closed when there is no room.
//   - Reading: see readers. Two large and two small reads at a time are in the engine, each
//     large one with some 24 MiB; a caller that does not keep up leaves the engine and holds
//     nothing there. 64 MiB, and where data lies scattered what store.Options.Wide allows, which
//     "scale serve" sets to 64 MiB.
//   - Connections: 30 KiB each with TLS, 30 MiB for a thousand.
//
// Memory is the last resort against what these sums have not foreseen.
type Limits struct {
	// MessageBytes bounds a message, both ways, in bytes; default and most 4 MiB.
	MessageBytes int
	// PieceBytes bounds a piece of data in a stream; default and most 1 MiB.
	PieceBytes int
	// TreeEntries bounds the entries of a tree that is put; default 50 million.
	TreeEntries uint64
	// TreeDepth bounds the levels of directories of a tree that is put; default 256.
	TreeDepth int
	// PathBytes bounds a path, in bytes; default and most 4096.
	PathBytes int
	// NameBytes bounds a component of a path; default and most 255.
	NameBytes int
	// DatasetBytes bounds all files of a dataset together; default 16 TiB.
	DatasetBytes uint64
	// ChallengeSamples bounds the samples of a challenge; default and most 1024.
	ChallengeSamples int

	// HeaderBytes bounds the headers of a call; default 16 KiB.
	HeaderBytes int
	// Connections bounds the connections of each listener; default 2048. Who comes when there
	// are so many takes the place of one who has shown nothing: see Identity.Anonymous.
	Connections int
	// ConnectionCalls bounds the calls at a time on one connection; default 128.
	ConnectionCalls int
	// Calls bounds the calls at a time of all callers; default 512. An eighth of them is kept
	// for calls of one small message each way, and streams cannot take it. Eight more of
	// these may come through the private socket when all are taken.
	Calls int
	// Writes bounds the puts, uploads and commits at a time; default 64.
	Writes int
	// WriteQueue bounds those that wait for a turn, and WriteWait how long one waits, and any
	// call for room for its answer; default 64 and 10 s.
	WriteQueue int
	WriteWait  time.Duration

	// HandshakeTime bounds how long a connection may take to be set up; default 10 s.
	HandshakeTime time.Duration
	// IdleTime bounds how long a stream may wait for its caller, in all: the time it waits
	// counts up, and what is moved counts it down again, a second for every MinRate bytes.
	// So silence ends after IdleTime, and a trickle below MinRate somewhat later. A message
	// must arrive whole within IdleTime. Default 60 s and 4 KiB a second.
	IdleTime time.Duration
	MinRate  int
	// TotalTime bounds a call; default 24 h.
	TotalTime time.Duration

	// ReceiveBytes bounds requests that have arrived and are not consumed; default 96 MiB.
	ReceiveBytes int
	// SendBytes bounds answers that are being made, or that their callers have not taken, and
	// the names in a proof's manifest; default 64 MiB.
	SendBytes int
	// Memory is the live heap of the process, in bytes, beyond which new calls are refused
	// and those that wait for their caller are ended. Default: seven eighths of the
	// process's memory limit (runtime/debug.SetMemoryLimit, $GOMEMLIMIT), or none without one.
	Memory int64
}

const (
	mostMessage = 4 << 20
	mostPiece   = 1 << 20
	mostPath    = 4096
	mostName    = 255
	// serveWindow is what a stream takes before its handler asks for it.
	serveWindow = 256 << 10
	// serveConnWindow does not bound memory: the transport opens it again as data comes in.
	serveConnWindow = 4 << 20
)

// An identity may have all but this part of the calls and of the writes at a time, so that
// one busy or hostile caller leaves something for the others.
const shareForOthers = 8

// withDefaults returns the limits with defaults in place of zeros, or what is wrong.
func (l Limits) withDefaults() (Limits, error) {
	var err error
	def(&err, "MessageBytes", &l.MessageBytes, 64<<10, mostMessage, mostMessage)
	def(&err, "PieceBytes", &l.PieceBytes, 1<<10, mostPiece, min(mostPiece, l.MessageBytes/2))
	def(&err, "TreeEntries", &l.TreeEntries, 1, 1<<40, 50_000_000)
	def(&err, "TreeDepth", &l.TreeDepth, 1, mostPath/2, 256)
	def(&err, "PathBytes", &l.PathBytes, 1, mostPath, mostPath)
	def(&err, "NameBytes", &l.NameBytes, 1, mostName, mostName)
	def(&err, "DatasetBytes", &l.DatasetBytes, 1, 1<<60, 16<<40)
	def(&err, "ChallengeSamples", &l.ChallengeSamples, 1, audit.MaxCount, audit.MaxCount)
	def(&err, "HeaderBytes", &l.HeaderBytes, 4<<10, 1<<20, 16<<10)
	def(&err, "Connections", &l.Connections, 1, 1<<20, 2048)
	def(&err, "ConnectionCalls", &l.ConnectionCalls, 1, 1<<16, 128)
	def(&err, "Calls", &l.Calls, 8, 1<<20, 512)
	def(&err, "Writes", &l.Writes, 1, 1<<16, 64)
	def(&err, "WriteQueue", &l.WriteQueue, 1, 1<<16, 64)
	def(&err, "WriteWait", &l.WriteWait, time.Millisecond, time.Hour, 10*time.Second)
	def(&err, "HandshakeTime", &l.HandshakeTime, time.Millisecond, time.Hour, 10*time.Second)
	def(&err, "IdleTime", &l.IdleTime, time.Millisecond, 24*time.Hour, time.Minute)
	def(&err, "MinRate", &l.MinRate, 1, 1<<30, 4<<10)
	def(&err, "TotalTime", &l.TotalTime, time.Second, 10*365*24*time.Hour, 24*time.Hour)
	def(&err, "ReceiveBytes", &l.ReceiveBytes, 1<<20, 1<<40, 96<<20)
	def(&err, "SendBytes", &l.SendBytes, 1<<20, 1<<40, 64<<20)
	def(&err, "Memory", &l.Memory, 16<<20, 1<<50, heapLimit())
	return l, err
}

func def[T int | int64 | uint64 | time.Duration](err *error, name string, v *T, least, most, def T) {
	if *v == 0 {
		*v = def
	} else if (*v < least || *v > most) && *err == nil {
		*err = fmt.Errorf("limit %s is %v, must be %v to %v: %w", name, *v, least, most, store.ErrInvalid)
	}
}

// named are the limits that Set takes.
func (l *Limits) named() map[string]any {
	return map[string]any{
		"message-bytes": &l.MessageBytes, "piece-bytes": &l.PieceBytes, "header-bytes": &l.HeaderBytes,
		"tree-entries": &l.TreeEntries, "tree-depth": &l.TreeDepth, "path-bytes": &l.PathBytes, "name-bytes": &l.NameBytes,
		"challenge-samples": &l.ChallengeSamples, "connection-calls": &l.ConnectionCalls,
		"write-queue": &l.WriteQueue, "write-wait": &l.WriteWait, "handshake-time": &l.HandshakeTime, "min-rate": &l.MinRate,
	}
}

// Set sets one of the limits that are rarely changed, of a zero value of it, from text:
// "tree-entries", "1000000", or "write-wait", "5s". LimitNames has the names. Whether the
// value can be is found out by whoever uses the limits.
func (l *Limits) Set(name, value string) error {
	set, err := false, error(nil)
	var n uint64
	var d time.Duration
	switch v := l.named()[name].(type) {
	case *int:
		n, err = strconv.ParseUint(value, 10, 31)
		*v, set = int(n), *v != 0
	case *uint64:
		n, err = strconv.ParseUint(value, 10, 63)
		*v, set = n, *v != 0
	case *time.Duration:
		d, err = time.ParseDuration(value)
		*v, set = d, *v != 0
	default:
		return fmt.Errorf("no limit is named %q, but %s: %w", name, strings.Join(LimitNames(), ", "), store.ErrInvalid)
	}
	switch {
	case err != nil:
		return fmt.Errorf("limit %s: %w: %w", name, err, store.ErrInvalid)
	case set:
		return fmt.Errorf("limit %s is given twice: %w", name, store.ErrInvalid)
	case n == 0 && d <= 0:
		return fmt.Errorf("limit %s is %s, must be above 0: %w", name, value, store.ErrInvalid)
	}
	return nil
}

// Check says what is wrong with the limits, as NewServer does.
func (l Limits) Check() error {
	_, err := l.withDefaults()
	return err
}

// LimitNames returns the names that Set takes, sorted.
func LimitNames() []string { return slices.Sorted(maps.Keys(new(Limits).named())) }

// proto is the form in which callers are told.
func (l Limits) proto() *scalev1.Limits {
	return &scalev1.Limits{
		MessageBytes: uint64(l.MessageBytes), PieceBytes: uint64(l.PieceBytes), TreeEntries: l.TreeEntries,
		PathBytes: uint32(l.PathBytes), TreeDepth: uint32(l.TreeDepth), DatasetBytes: l.DatasetBytes,
		ConnectionCalls: uint32(l.ConnectionCalls), Calls: uint32(l.Calls), Writes: uint32(l.Writes),
		ChallengeSamples: uint32(l.ChallengeSamples),
		IdleSeconds:      seconds(l.IdleTime), TotalSeconds: seconds(l.TotalTime),
	}
}

func seconds(d time.Duration) uint32 { return uint32((d + time.Second - 1) / time.Second) }
