package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectalphapb "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/emptypb"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
)

// scopes is what each call needs, written down a second time: a mistake in the table that
// the server uses would otherwise give something away unseen.
var scopes = map[string]map[string]scalev1.Scope{
	"scale.v1.DatasetService": {
		"Put": write, "Get": read, "GetTree": read, "Stat": read, "Resolve": read, "ListDatasets": read,
		"ListVersions": read, "ListTree": read, "Remove": write, "ExportCar": read,
	},
	"scale.v1.BlockService":   {"FindMissing": write, "Upload": write, "Commit": write},
	"scale.v1.CuratorService": {"ListCurators": read, "AddCurator": admin, "RemoveCurator": admin},
	"scale.v1.LedgerService": {
		"GetHead": read, "GetEntry": read, "StreamEntries": read, "GetInclusionProof": read, "GetConsistencyProof": read, "ExportLog": read,
	},
	"scale.v1.ProofService": {"Prove": read, "Verify": read},
	"scale.v1.AuditService": {"Challenge": read},
	"scale.v1.AnchorService": {
		"ListChains": read, "ListAnchors": read, "GetReceipts": read, "AnchorNow": admin, "WatchAnchors": read,
		"GetConfiguration": admin, "ConfigureChain": admin,
	},
	"scale.v1.NodeService": {
		"GetInfo": read, "GetTotals": read, "Check": admin, "CreateToken": admin, "ListTokens": admin, "RevokeToken": admin,
	},
	"grpc.health.v1.Health":                    {"Check": none, "List": none, "Watch": none},
	"grpc.reflection.v1.ServerReflection":      {"ServerReflectionInfo": read},
	"grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo": read},
}

// allMethods returns the methods of all services that the API describes.
func allMethods(t *testing.T) map[string]protoreflect.MethodDescriptor {
	t.Helper()
	all := map[string]protoreflect.MethodDescriptor{}
	add := func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				m := s.Methods().Get(j)
				all[fmt.Sprintf("/%s/%s", s.FullName(), m.Name())] = m
			}
		}
		return true
	}
	protoregistry.GlobalFiles.RangeFilesByPackage("scale.v1", add)
	add(healthpb.File_grpc_health_v1_health_proto)
	add(reflectpb.File_grpc_reflection_v1_reflection_proto)
	add(reflectalphapb.File_grpc_reflection_v1alpha_reflection_proto)
	return all
}

func TestMethodsComplete(t *testing.T) {
	all := allMethods(t)
	for name, m := range all {
		known, ok := methods[name]
		if !ok {
			t.Errorf("%s is not in the table of methods", name)
		}
		want, ok := scopes[string(m.Parent().FullName())][string(m.Name())]
		if !ok {
			t.Errorf("%s is not in the table of scopes", name)
		}
		if known.scope != want {
			t.Errorf("%s needs %v, want %v", name, known.scope, want)
		}
		if known.kind == kindShort && (m.IsStreamingClient() || m.IsStreamingServer()) {
			t.Errorf("%s is a stream and counts as a short call", name)
		}
		if known.kind == kindWrite && known.scope < write {
			t.Errorf("%s writes with the scope %v", name, known.scope)
		}
		if known.scope == admin && !known.audited && m.Name() != "ListTokens" {
			t.Errorf("%s needs admin and is not logged when all is well", name)
		}
	}
	for name := range methods {
		if all[name] == nil {
			t.Errorf("%s is in the table of methods and in no service", name)
		}
	}
	n := newRawNode(t, nil)
	served := 0
	for service, info := range n.srv.GRPC().GetServiceInfo() {
		for _, m := range info.Methods {
			served++
			if all["/"+service+"/"+m.Name] == nil {
				t.Errorf("/%s/%s is served and not described", service, m.Name)
			}
		}
	}
	if served != len(all) {
		t.Errorf("%d methods are served, %d described", served, len(all))
	}
}

// call makes a call with one message that is empty, and returns how it ended. Answers are
// not read beyond the first.
func (s *stubs) call(ctx context.Context, name string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ss, err := s.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, name)
	if err != nil {
		return err
	}
	if err := ss.SendMsg(&emptypb.Empty{}); err != nil && err != io.EOF {
		return err
	}
	if err := ss.CloseSend(); err != nil {
		return err
	}
	if err := ss.RecvMsg(&emptypb.Empty{}); err != io.EOF {
		return err
	}
	return nil
}

func TestScopes(t *testing.T) {
	var scope atomic.Int32
	n := newRawNode(t, func(n *rawNode) {
		n.opt.Authenticate = func(context.Context) (Identity, error) {
			if scope.Load() < 0 {
				return Identity{}, errors.New("who are you?")
			}
			return Identity{Name: "somebody", Scope: scalev1.Scope(scope.Load())}, nil
		}
		n.opt.Tokens = panickyTokens{}
	})
	for name, m := range allMethods(t) {
		need := scopes[string(m.Parent().FullName())][string(m.Name())]
		for _, has := range []scalev1.Scope{-1, none, read, write, admin} {
			scope.Store(int32(has))
			err := n.call(n.ctx, name)
			what := fmt.Sprintf("%s with %v", name, has)
			switch {
			case need > none && has < none:
				refused(t, what, err, scalev1.ErrorReason_ERROR_REASON_TOKEN)
			case name == scalev1.AnchorService_GetConfiguration_FullMethodName, name == scalev1.AnchorService_ConfigureChain_FullMethodName:
				// Over a network, whatever the scope.
				refused(t, what, err, scalev1.ErrorReason_ERROR_REASON_SCOPE, "private socket")
			case need > none && has < need:
				st := refused(t, what, err, scalev1.ErrorReason_ERROR_REASON_SCOPE, FormatScope(need))
				if st.Code() != codes.PermissionDenied {
					t.Errorf("%s: %v", what, st.Code())
				}
			default:
				if c := status.Code(err); c == codes.PermissionDenied || c == codes.Unauthenticated || c == codes.Unimplemented {
					t.Errorf("%s: %v", what, err)
				}
			}
		}
	}
}

// Methods that do not exist, and names of them that make no sense, are UNIMPLEMENTED.
func TestUnknownMethods(t *testing.T) {
	n := newRawNode(t, nil)
	for _, name := range []string{"/scale.v1.DatasetService/Nothing", "/scale.v2.DatasetService/Get", "/x", "/", "//", "/scale.v1.DatasetService/"} {
		if err := n.call(n.ctx, name); status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The numbers of fields that are read and written by hand are those of the API.
func TestFieldNumbers(t *testing.T) {
	for _, f := range []struct {
		message proto.Message
		name    protoreflect.Name
		number  protowire.Number
	}{
		{&scalev1.PutRequest{}, "header", putHeaderField}, {&scalev1.PutRequest{}, "entry", putEntryField}, {&scalev1.PutRequest{}, "data", putDataField},
		{&scalev1.PutRequest{}, "entries", putEntriesField}, {&scalev1.PutEntries{}, "entries", entriesField},
		{&scalev1.PutEntry{}, "data", entryDataField},
		{&scalev1.UploadRequest{}, "frame", uploadFrameField}, {&scalev1.UploadRequest{}, "data", uploadDataField},
		{&scalev1.Frame{}, "codec", frameCodecField}, {&scalev1.Frame{}, "plain_size", framePlainField}, {&scalev1.Frame{}, "sealed_size", frameSealedField},
		{&scalev1.Frame{}, "chunks", frameChunksField}, {&scalev1.Frame{}, "data", frameDataField},
		{&scalev1.CommitRequest{}, "header", commitHeaderField}, {&scalev1.CommitRequest{}, "entries", commitEntriesField},
		{&scalev1.CommitRequest{}, "chunks", commitChunksField}, {&scalev1.CommitRequest{}, "signed_entry", commitSignedField},
		{&scalev1.CommitEntries{}, "entries", entriesField}, {&scalev1.CommitEntry{}, "chunks", entryChunksField}, {&scalev1.ChunkList{}, "chunks", listChunksField},
		{&scalev1.Chunk{}, "digest", chunkDigestField}, {&scalev1.Chunk{}, "size", chunkSizeField},
		{&scalev1.GetResponse{}, "frame", getFrameField}, {&scalev1.FrameRange{}, "frame", rangeFrameField},
		{&scalev1.FrameRange{}, "start", rangeStartField}, {&scalev1.FrameRange{}, "end", rangeEndField}, {&scalev1.FrameRange{}, "back", rangeBackField},
		{&scalev1.GetResponse{}, "data", getDataField}, {&scalev1.ProveResponse{}, "data", proveDataField}, {&scalev1.ExportCarResponse{}, "data", carDataField},
		{&scalev1.GetTreeResponse{}, "parts", treePartsField}, {&scalev1.TreePart{}, "entry", partEntryField}, {&scalev1.TreePart{}, "data", partDataField},
	} {
		d := f.message.ProtoReflect().Descriptor()
		if field := d.Fields().ByName(f.name); field == nil || field.Number() != f.number {
			t.Errorf("%s.%s is %v, not %d", d.FullName(), f.name, field, f.number)
		}
	}
	// A message that is read by hand has no other fields: what they say would be lost.
	for m, fields := range map[proto.Message]int{
		&scalev1.PutRequest{}: 4, &scalev1.PutEntries{}: 1, &scalev1.UploadRequest{}: 2, &scalev1.Frame{}: 5, &scalev1.CommitRequest{}: 4,
		&scalev1.CommitEntries{}: 1, &scalev1.ChunkList{}: 1, &scalev1.Chunk{}: 2, &scalev1.TreePart{}: 2,
		&scalev1.GetResponse{}: 2, &scalev1.FrameRange{}: 4,
	} {
		if d := m.ProtoReflect().Descriptor(); d.Fields().Len() != fields {
			t.Errorf("%s has %d fields, %d are read", d.FullName(), d.Fields().Len(), fields)
		}
	}
}

// The reflection service describes every service, whole.
func TestReflection(t *testing.T) {
	n := newRawNode(t, nil)
	ss, err := reflectpb.NewServerReflectionClient(n.conn).ServerReflectionInfo(n.ctx)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(req *reflectpb.ServerReflectionRequest) *reflectpb.ServerReflectionResponse {
		t.Helper()
		if err := ss.Send(req); err != nil {
			t.Fatal(err)
		}
		resp, err := ss.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	list := ask(&reflectpb.ServerReflectionRequest{MessageRequest: &reflectpb.ServerReflectionRequest_ListServices{}})
	if got := len(list.GetListServicesResponse().GetService()); got != len(scopes) {
		t.Errorf("%d services, want %d", got, len(scopes))
	}
	var files protoregistry.Files
	for _, s := range list.GetListServicesResponse().GetService() {
		resp := ask(&reflectpb.ServerReflectionRequest{MessageRequest: &reflectpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: s.GetName()}})
		for _, b := range resp.GetFileDescriptorResponse().GetFileDescriptorProto() {
			var d descriptorpb.FileDescriptorProto
			if err := proto.Unmarshal(b, &d); err != nil {
				t.Fatal(err)
			}
			f, err := protodesc.NewFile(&d, protoregistry.GlobalFiles)
			if err != nil {
				t.Fatal(err)
			}
			files.RegisterFile(f)
		}
		if _, err := files.FindDescriptorByName(protoreflect.FullName(s.GetName())); err != nil {
			t.Errorf("%s: %v", s.GetName(), err)
		}
	}
	if err := ss.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := ss.Recv(); err != io.EOF {
		t.Errorf("%v, want the end", err)
	}
}

// Every service says in its comment which scopes its calls need.
func TestScopesAreDocumented(t *testing.T) {
	files, err := filepath.Glob("../proto/scale/v1/*.proto")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	service := regexp.MustCompile(`((?:^|\n)(?://.*\n)+)service (\w+) \{`)
	found := 0
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range service.FindAllSubmatch(text, -1) {
			found++
			for method, scope := range scopes["scale.v1."+string(m[2])] {
				if !regexp.MustCompile(`\b` + FormatScope(scope) + `\b`).Match(m[1]) {
					t.Errorf("%s does not say that %s needs the scope %s", m[2], method, FormatScope(scope))
				}
			}
		}
	}
	if found != 8 {
		t.Errorf("%d services have comments", found)
	}
}
