package grpcapi

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ipfs/go-cid"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/koii-network/scale/dag"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

const (
	errorDomain  = "scale.koii.network"
	reasonPrefix = "ERROR_REASON_"
	missingType  = "MISSING_CHUNK"

	// What is said of an error, percent-encoded in one header and as base64 in another, stays
	// below the 8 KiB of headers that some clients take.
	maxErrorText    = 1000
	maxErrorMissing = 16
)

// An internalError is a fault of the node: callers are told its id, the log has the rest.
type internalError struct {
	id  string
	err error
}

func (e *internalError) Error() string {
	return fmt.Sprintf("%v, number %s in its log", ErrInternal, e.id)
}

func (e *internalError) Unwrap() []error { return []error{ErrInternal, e.err} }

// asInternal gives an error that callers are not to see in full an id. ok is false for
// other errors, which it returns as they are.
func asInternal(err error) (_ error, ok bool) {
	var known *internalError
	if errors.As(err, &known) {
		return known, true
	}
	if _, told := err.(interface{ GRPCStatus() *status.Status }); told {
		return err, false // of gRPC itself
	}
	if c, ok := classOf(err); ok && c.code != codes.Internal {
		return err, false
	}
	var b [6]byte
	rand.Read(b[:]) // never fails
	return &internalError{id: hex.EncodeToString(b[:]), err: err}, true
}

// toStatus returns what a caller is told of err; nil is OK. A status stays what it is.
// Errors that have no class are those of the node, and are not told.
func toStatus(err error) *status.Status {
	if err == nil {
		return nil
	}
	if s, ok := err.(interface{ GRPCStatus() *status.Status }); ok {
		return s.GRPCStatus()
	}
	err, _ = asInternal(err)
	c, _ := classOf(err)
	if inner := (*internalError)(nil); errors.As(err, &inner) {
		// The class beneath is told where there is one, the words are not.
		if of, ok := classOf(inner.err); ok {
			c.name = of.name
		}
	}
	s := status.New(c.code, errorText(err))
	if c.reason == scalev1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		return s // of a context: gRPC's own
	}
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{
		Reason: strings.TrimPrefix(c.reason.String(), reasonPrefix), Domain: errorDomain, Metadata: map[string]string{"class": c.name},
	}}
	if r := (*refusal)(nil); errors.As(err, &r) {
		c.hint = r.hint
	}
	if c.hint != "" {
		details = append(details, &errdetails.Help{Links: []*errdetails.Help_Link{{Description: c.hint}}})
	}
	retry := c.retry
	if r := (*RetryAfter)(nil); errors.As(err, &r) {
		retry = r.After
	}
	if retry > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(retry)})
	}
	if f := (*fieldError)(nil); errors.As(err, &f) && c.code == codes.InvalidArgument {
		details = append(details, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{
			Field: f.field, Description: cutText(withoutClass.Replace(f.err.Error()), maxErrorText/4),
		}}})
	}
	if m := (*store.MissingError)(nil); errors.As(err, &m) {
		p := &errdetails.PreconditionFailure{}
		for _, d := range m.Digests[:min(len(m.Digests), maxErrorMissing)] {
			p.Violations = append(p.Violations, &errdetails.PreconditionFailure_Violation{Type: missingType, Subject: dag.RawCID(d).String()})
		}
		details = append(details, p)
	}
	if with, err := s.WithDetails(details...); err == nil {
		s = with
	}
	return s
}

// withoutClass takes out of what is wrong with a field that something is, which code, reason
// and message say.
var withoutClass = strings.NewReplacer(": "+store.ErrInvalid.Error(), "", store.ErrInvalid.Error()+": ", "")

// errorText bounds what an error says and makes it UTF-8.
func errorText(err error) string { return cutText(err.Error(), maxErrorText) }

func cutText(s string, most int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= most {
		return s
	}
	head, tail := most*2/3, len(s)-most/3+3
	for !utf8.RuneStart(s[head]) {
		head--
	}
	for !utf8.RuneStart(s[tail]) {
		tail++
	}
	return s[:head] + "…" + s[tail:]
}

// A statusError is an error of a node, as its caller has it. It is of the class that the
// error had at the node.
type statusError struct {
	st    *status.Status
	class error // nil if the node named none that is known here
	hint  string
	retry *RetryAfter
	more  []error
}

func (e *statusError) Error() string              { return plain(e.st.Message(), maxErrorText) }
func (e *statusError) GRPCStatus() *status.Status { return e.st }

// Hint returns what to do, in the words of the node, or "".
func (e *statusError) Hint() string { return e.hint }

func (e *statusError) Unwrap() []error {
	var errs []error
	if e.class != nil {
		errs = append(errs, e.class)
	}
	if e.retry != nil {
		errs = append(errs, e.retry)
	}
	return append(errs, e.more...)
}

// fromStatus returns the error that a status stands for, of the same class as the one
// that toStatus was given. nil and io.EOF stay what they are, as does an error that is no
// status.
func fromStatus(err error) error {
	st, ok := status.FromError(err)
	if err == nil || err == io.EOF || !ok {
		return err
	}
	if st.Code() == codes.OK {
		return nil
	}
	e := &statusError{st: st}
	named := false
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() != errorDomain {
				continue
			}
			reason := scalev1.ErrorReason(scalev1.ErrorReason_value[reasonPrefix+d.GetReason()])
			if reason == scalev1.ErrorReason_ERROR_REASON_UNSPECIFIED {
				continue
			}
			if c, ok := byReason(reason, d.GetMetadata()["class"]); ok {
				e.class, named = c.err, true
			}
		case *errdetails.Help:
			for _, l := range d.GetLinks() {
				e.hint = plain(l.GetDescription(), maxErrorText)
			}
		case *errdetails.RetryInfo:
			if after := d.GetRetryDelay().AsDuration(); after > 0 {
				e.retry = &RetryAfter{After: min(after, time.Hour), Err: errors.New(e.Error())}
			}
		case *errdetails.PreconditionFailure:
			if m := missingOf(d); m != nil {
				e.more = append(e.more, m)
			}
		}
	}
	if !named {
		e.class = classOfCode(st.Code())
	}
	return e
}

func missingOf(p *errdetails.PreconditionFailure) *store.MissingError {
	m := &store.MissingError{}
	for _, v := range p.GetViolations() {
		c, err := cid.Decode(v.GetSubject())
		if v.GetType() != missingType || err != nil {
			continue
		}
		if d, err := dag.DigestOf(c); err == nil {
			m.Digests = append(m.Digests, d)
		}
	}
	if len(m.Digests) == 0 {
		return nil
	}
	return m
}

// classOfCode is for statuses that gRPC makes, at either end, and for nodes that do not
// say more.
func classOfCode(c codes.Code) error {
	switch c {
	case codes.Canceled:
		return context.Canceled
	case codes.DeadlineExceeded:
		return context.DeadlineExceeded
	case codes.InvalidArgument, codes.OutOfRange:
		return store.ErrInvalid
	case codes.NotFound:
		return store.ErrNotFound
	case codes.AlreadyExists:
		return store.ErrExists
	case codes.PermissionDenied:
		return ErrScope
	case codes.Unauthenticated:
		return ErrToken
	case codes.ResourceExhausted:
		return ErrLimit
	case codes.Aborted:
		return store.ErrConflict
	case codes.DataLoss:
		return store.ErrCorrupt
	case codes.Unimplemented:
		return errors.ErrUnsupported
	case codes.Internal, codes.Unknown:
		return ErrInternal
	}
	return nil
}
