package grpcapi

import (
	"context"
	"errors"
	"io/fs"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/audit"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/dag/proof"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// Error classes of the node, beside ErrToken and those of package store.
var (
	// ErrScope: the token's scope does not allow the call, or nothing does from where it comes.
	ErrScope = errors.New("not allowed by the token's scope")
	// ErrLimit: a limit of the node was reached. A RetryAfter says whether it will pass.
	ErrLimit = errors.New("limit reached")
	// ErrTooSlow: the caller was too slow, or the call took longer than the node allows.
	ErrTooSlow = errors.New("too slow")
	// ErrClosing: the node is shutting down.
	ErrClosing = errors.New("the node is shutting down")
	// ErrInternal: a fault of the node. The message has an id under which its log says more.
	ErrInternal = errors.New("internal error of the node")
)

// An errorClass is a line of the table of errors.
type errorClass struct {
	err    error  // what errors.Is finds
	name   string // which class of several with one reason: metadata "class" of the ErrorInfo
	code   codes.Code
	reason scalev1.ErrorReason
	retry  time.Duration // when the same call may succeed; 0: not by waiting
	hint   string        // what to do, or ""
}

// errorClasses is the one table from errors to what callers are told, and back. Of several
// classes that an error has the first counts.
var errorClasses = []errorClass{
	{ErrToken, "token", codes.Unauthenticated, scalev1.ErrorReason_ERROR_REASON_TOKEN, 0,
		`send the metadata "authorization: Bearer TOKEN"; "scale token create" makes one`},
	{ErrScope, "scope", codes.PermissionDenied, scalev1.ErrorReason_ERROR_REASON_SCOPE, 0,
		`use a token with the scope that it names: "scale token create NAME --scope SCOPE"`},
	{ErrTooSlow, "too-slow", codes.DeadlineExceeded, scalev1.ErrorReason_ERROR_REASON_TOO_SLOW, 0,
		"send or read faster, in smaller pieces; NodeService.GetInfo says the limits"},
	{ErrClosing, "closing", codes.Unavailable, scalev1.ErrorReason_ERROR_REASON_CLOSING, 2 * time.Second, ""},
	{ErrLimit, "limit", codes.ResourceExhausted, scalev1.ErrorReason_ERROR_REASON_LIMIT, 0, ""},
	{store.ErrManifest, "manifest", codes.ResourceExhausted, scalev1.ErrorReason_ERROR_REASON_LIMIT, 0,
		"prove single files, or the dataset without its manifest; with more --memory a node makes larger ones"},
	{ErrInternal, "internal", codes.Internal, scalev1.ErrorReason_ERROR_REASON_INTERNAL, 0, ""},

	{store.ErrMissing, "missing", codes.FailedPrecondition, scalev1.ErrorReason_ERROR_REASON_MISSING_CHUNKS, 0,
		"ask BlockService.FindMissing, upload what it names, and commit again"},
	{ledger.ErrNotAdmitted, "not-admitted", codes.PermissionDenied, scalev1.ErrorReason_ERROR_REASON_NOT_ADMITTED, 0,
		`have the key admitted: "scale curator add KEY"`},
	{store.ErrLastCurator, "last-curator", codes.FailedPrecondition, scalev1.ErrorReason_ERROR_REASON_LAST_CURATOR, 0,
		"admit another key first"},
	{store.ErrStopped, "stopped", codes.Unavailable, scalev1.ErrorReason_ERROR_REASON_STOPPED, 0,
		"restart the node, then ask for the versions of the name"},
	{store.ErrReadOnly, "read-only", codes.FailedPrecondition, scalev1.ErrorReason_ERROR_REASON_READ_ONLY, 0,
		`run "scale check --read-data" on the node`},
	{store.ErrNoSpace, "no-space", codes.ResourceExhausted, scalev1.ErrorReason_ERROR_REASON_NO_SPACE, 0,
		"make room on the node's disk, then repeat: what was sent is kept"},
	{syscall.ENOSPC, "no-space-os", codes.ResourceExhausted, scalev1.ErrorReason_ERROR_REASON_NO_SPACE, 0,
		"make room on the node's disk, then repeat: what was sent is kept"},
	{syscall.EDQUOT, "quota", codes.ResourceExhausted, scalev1.ErrorReason_ERROR_REASON_NO_SPACE, 0,
		"raise the quota of the node's user, then repeat: what was sent is kept"},
	{store.ErrMismatch, "mismatch", codes.InvalidArgument, scalev1.ErrorReason_ERROR_REASON_MISMATCH, 0, ""},
	{store.ErrConflict, "conflict", codes.Aborted, scalev1.ErrorReason_ERROR_REASON_CONFLICT, 0,
		"read LedgerService.GetHead again, sign again, and repeat"},
	{ledger.ErrConflict, "ledger-conflict", codes.Aborted, scalev1.ErrorReason_ERROR_REASON_CONFLICT, 0,
		"read LedgerService.GetHead again, sign again, and repeat"},
	{ledger.ErrDuplicate, "duplicate", codes.Aborted, scalev1.ErrorReason_ERROR_REASON_CONFLICT, 0,
		"the entry is there already: ask for the versions of the name"},
	{ledger.ErrUnknownParent, "unknown-parent", codes.Aborted, scalev1.ErrorReason_ERROR_REASON_CONFLICT, 0,
		"sign with parents that are in the ledger"},
	{ledger.ErrSignature, "signature", codes.InvalidArgument, scalev1.ErrorReason_ERROR_REASON_MISMATCH, 0, ""},
	{store.ErrKeys, "keys", codes.Internal, scalev1.ErrorReason_ERROR_REASON_INTERNAL, 0, ""},
	{store.ErrFormat, "format", codes.Internal, scalev1.ErrorReason_ERROR_REASON_INTERNAL, 0, ""},
	{store.ErrBusy, "busy", codes.Internal, scalev1.ErrorReason_ERROR_REASON_INTERNAL, 0, ""},
	{store.ErrInvalid, "invalid", codes.InvalidArgument, scalev1.ErrorReason_ERROR_REASON_INVALID, 0, ""},
	{proof.ErrNoKey, "no-key", codes.InvalidArgument, scalev1.ErrorReason_ERROR_REASON_INVALID, 0,
		"a proof is checked against the log's key, which its verifier brings"},
	{proof.ErrRefused, "refused", codes.InvalidArgument, scalev1.ErrorReason_ERROR_REASON_MISMATCH, 0, ""},
	{proof.ErrLarge, "proof-large", codes.ResourceExhausted, scalev1.ErrorReason_ERROR_REASON_LIMIT, 0,
		`verify it at your own end: "scale verify"`},
	{proof.ErrFormat, "proof-format", codes.InvalidArgument, scalev1.ErrorReason_ERROR_REASON_INVALID, 0, ""},
	{audit.ErrRefused, "audit-refused", codes.InvalidArgument, scalev1.ErrorReason_ERROR_REASON_MISMATCH, 0, ""},
	{audit.ErrFormat, "audit-format", codes.InvalidArgument, scalev1.ErrorReason_ERROR_REASON_INVALID, 0, ""},
	{anchor.ErrNoChain, "no-chain", codes.NotFound, scalev1.ErrorReason_ERROR_REASON_NOT_FOUND, 0,
		`set it up on the node's machine: "scale anchor configure"`},
	{anchor.ErrConfig, "anchor-config", codes.InvalidArgument, scalev1.ErrorReason_ERROR_REASON_INVALID, 0, ""},
	{dag.ErrProfile, "profile", codes.InvalidArgument, scalev1.ErrorReason_ERROR_REASON_INVALID, 0,
		"NodeService.GetInfo lists the profiles"},
	{store.ErrCorrupt, "corrupt", codes.DataLoss, scalev1.ErrorReason_ERROR_REASON_CORRUPT, 0,
		`run "scale check --read-data" on the node; putting the same data again mends what is damaged`},
	{ledger.ErrCorrupt, "ledger-corrupt", codes.DataLoss, scalev1.ErrorReason_ERROR_REASON_CORRUPT, 0,
		`run "scale check --read-data" on the node`},
	{dag.ErrCorrupt, "dag-corrupt", codes.DataLoss, scalev1.ErrorReason_ERROR_REASON_CORRUPT, 0,
		`run "scale check --read-data" on the node`},
	{ledger.ErrProof, "ledger-proof", codes.DataLoss, scalev1.ErrorReason_ERROR_REASON_CORRUPT, 0, ""},
	{dag.ErrProof, "dag-proof", codes.DataLoss, scalev1.ErrorReason_ERROR_REASON_CORRUPT, 0, ""},
	{ledger.ErrFormat, "ledger-format", codes.InvalidArgument, scalev1.ErrorReason_ERROR_REASON_INVALID, 0, ""},
	{dag.ErrPath, "path", codes.InvalidArgument, scalev1.ErrorReason_ERROR_REASON_INVALID, 0, ""},
	{dag.ErrAttr, "attr", codes.InvalidArgument, scalev1.ErrorReason_ERROR_REASON_INVALID, 0, ""},
	{dag.ErrOrder, "order", codes.InvalidArgument, scalev1.ErrorReason_ERROR_REASON_INVALID, 0, ""},
	{dag.ErrRange, "range", codes.InvalidArgument, scalev1.ErrorReason_ERROR_REASON_INVALID, 0, ""},
	{dag.ErrFormat, "dag-format", codes.DataLoss, scalev1.ErrorReason_ERROR_REASON_CORRUPT, 0, ""},
	{store.ErrExists, "exists", codes.AlreadyExists, scalev1.ErrorReason_ERROR_REASON_EXISTS, 0, ""},
	{store.ErrNotFound, "not-found", codes.NotFound, scalev1.ErrorReason_ERROR_REASON_NOT_FOUND, 0, ""},
	{dag.ErrNotFound, "dag-not-found", codes.NotFound, scalev1.ErrorReason_ERROR_REASON_NOT_FOUND, 0, ""},
	// Of the store's own files: what a caller asks for by name is store.ErrNotFound.
	{fs.ErrNotExist, "file", codes.Internal, scalev1.ErrorReason_ERROR_REASON_INTERNAL, 0, ""},
	// gRPC defines these two, and has them said at both ends without a word from the node.
	{context.DeadlineExceeded, "deadline", codes.DeadlineExceeded, scalev1.ErrorReason_ERROR_REASON_UNSPECIFIED, 0, ""},
	{context.Canceled, "canceled", codes.Canceled, scalev1.ErrorReason_ERROR_REASON_UNSPECIFIED, 0, ""},
}

// classOf returns the class of an error of this process.
func classOf(err error) (errorClass, bool) {
	for _, c := range errorClasses {
		if errors.Is(err, c.err) {
			return c, true
		}
	}
	return errorClass{}, false
}

// byReason returns the class that an ErrorInfo names: the one called name, else the first
// with that reason.
func byReason(reason scalev1.ErrorReason, name string) (errorClass, bool) {
	var first *errorClass
	for i := range errorClasses {
		c := &errorClasses[i]
		if c.reason != reason {
			continue
		}
		if c.name == name {
			return *c, true
		}
		if first == nil {
			first = c
		}
	}
	if first == nil {
		return errorClass{}, false
	}
	return *first, true
}

// A RetryAfter is an error that will pass: the same call may succeed after so long.
type RetryAfter struct {
	After time.Duration
	Err   error
}

func (e *RetryAfter) Error() string { return e.Err.Error() }
func (e *RetryAfter) Unwrap() error { return e.Err }

// A refusal is an error of a class in words of its own, where those of the table would lead
// astray.
type refusal struct {
	class     error
	why, hint string
}

func (e *refusal) Error() string { return e.why }
func (e *refusal) Unwrap() error { return e.class }

// A fieldError says which field of a request is wrong.
type fieldError struct {
	field string // as protobuf names it: "range.end"
	err   error
}

func (e *fieldError) Error() string { return e.field + ": " + e.err.Error() }
func (e *fieldError) Unwrap() error { return e.err }
