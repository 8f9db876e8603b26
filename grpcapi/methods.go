package grpcapi

import (
	"fmt"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectalphapb "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
)

// A methodKind says what a method takes while it runs.
type methodKind uint8

const (
	// kindShort: one small message each way, and little work.
	kindShort methodKind = iota
	// kindStream: it may run for long.
	kindStream
	// kindWrite: it may run for long, and takes part in the engine's puts.
	kindWrite
)

// A method is what is known of a method before it is called.
type method struct {
	scope scalev1.Scope // SCOPE_UNSPECIFIED: anyone may call it
	kind  methodKind
	// request bounds a message to the node in bytes; 0 is maxRequest.
	request int
	// heavy requests take many times their size when they are read: few at a time.
	heavy bool
	// endless calls wait for news; they are ended at once when the node closes.
	endless bool
	// audited calls are logged also when all is well.
	audited bool
	// lasting calls leave something that stays. What they did is told also when they have been
	// ended meanwhile, and when there is little room for answers.
	lasting bool
	// private calls are about this machine: no token allows them, only the private socket.
	private bool
}

const (
	maxRequest     = 64 << 10
	maxFindDigests = 16384
	maxFindRequest = maxFindDigests*(2+32) + 1<<10
)

const (
	none  = scalev1.Scope_SCOPE_UNSPECIFIED
	read  = scalev1.Scope_SCOPE_READ
	write = scalev1.Scope_SCOPE_WRITE
	admin = scalev1.Scope_SCOPE_ADMIN
)

// methods is the one table of what each method needs. A method that is not in it cannot be
// called.
var methods = map[string]method{
	scalev1.DatasetService_Put_FullMethodName:          {scope: write, kind: kindWrite, request: mostMessage, lasting: true},
	scalev1.DatasetService_Get_FullMethodName:          {scope: read, kind: kindStream},
	scalev1.DatasetService_GetTree_FullMethodName:      {scope: read, kind: kindStream},
	scalev1.DatasetService_Stat_FullMethodName:         {scope: read},
	scalev1.DatasetService_Resolve_FullMethodName:      {scope: read},
	scalev1.DatasetService_ListDatasets_FullMethodName: {scope: read},
	scalev1.DatasetService_ListVersions_FullMethodName: {scope: read},
	scalev1.DatasetService_ListTree_FullMethodName:     {scope: read},
	scalev1.DatasetService_Remove_FullMethodName:       {scope: write, audited: true, lasting: true},
	scalev1.DatasetService_ExportCar_FullMethodName:    {scope: read, kind: kindStream},

	scalev1.BlockService_FindMissing_FullMethodName: {scope: write, request: maxFindRequest},
	scalev1.BlockService_Upload_FullMethodName:      {scope: write, kind: kindWrite, request: mostMessage},
	scalev1.BlockService_Commit_FullMethodName:      {scope: write, kind: kindWrite, request: mostMessage, lasting: true},

	scalev1.CuratorService_ListCurators_FullMethodName:  {scope: read},
	scalev1.CuratorService_AddCurator_FullMethodName:    {scope: admin, audited: true, lasting: true},
	scalev1.CuratorService_RemoveCurator_FullMethodName: {scope: admin, audited: true, lasting: true},

	scalev1.LedgerService_GetHead_FullMethodName:             {scope: read},
	scalev1.LedgerService_GetEntry_FullMethodName:            {scope: read},
	scalev1.LedgerService_StreamEntries_FullMethodName:       {scope: read, kind: kindStream, endless: true},
	scalev1.LedgerService_GetInclusionProof_FullMethodName:   {scope: read},
	scalev1.LedgerService_GetConsistencyProof_FullMethodName: {scope: read},
	scalev1.LedgerService_ExportLog_FullMethodName:           {scope: read, kind: kindStream},

	scalev1.ProofService_Prove_FullMethodName:  {scope: read, kind: kindStream},
	scalev1.ProofService_Verify_FullMethodName: {scope: read, request: mostMessage, heavy: true},

	scalev1.AuditService_Challenge_FullMethodName: {scope: read, kind: kindStream},

	scalev1.AnchorService_ListChains_FullMethodName:       {scope: read},
	scalev1.AnchorService_ListAnchors_FullMethodName:      {scope: read},
	scalev1.AnchorService_GetReceipts_FullMethodName:      {scope: read},
	scalev1.AnchorService_AnchorNow_FullMethodName:        {scope: admin, audited: true, lasting: true},
	scalev1.AnchorService_WatchAnchors_FullMethodName:     {scope: read, kind: kindStream, endless: true},
	scalev1.AnchorService_GetConfiguration_FullMethodName: {scope: admin, audited: true, private: true},
	scalev1.AnchorService_ConfigureChain_FullMethodName:   {scope: admin, audited: true, private: true, lasting: true},

	scalev1.NodeService_GetInfo_FullMethodName:     {scope: read},
	scalev1.NodeService_GetTotals_FullMethodName:   {scope: read},
	scalev1.NodeService_Check_FullMethodName:       {scope: admin, kind: kindStream, audited: true},
	scalev1.NodeService_CreateToken_FullMethodName: {scope: admin, audited: true, lasting: true},
	scalev1.NodeService_ListTokens_FullMethodName:  {scope: admin},
	scalev1.NodeService_RevokeToken_FullMethodName: {scope: admin, audited: true, lasting: true},

	// Whoever watches over the node need not have a token.
	healthpb.Health_Check_FullMethodName: {scope: none},
	healthpb.Health_List_FullMethodName:  {scope: none},
	healthpb.Health_Watch_FullMethodName: {scope: none, kind: kindStream, endless: true},

	reflectpb.ServerReflection_ServerReflectionInfo_FullMethodName:      {scope: read, kind: kindStream, endless: true},
	reflectalphapb.ServerReflection_ServerReflectionInfo_FullMethodName: {scope: read, kind: kindStream, endless: true},
}

// scopeError refuses who may not make a call.
func scopeError(m method, who Identity) error {
	if who.Anonymous {
		return &refusal{
			ErrScope,
			fmt.Sprintf("the call needs a token with the scope %s, and has none", FormatScope(m.scope)),
			fmt.Sprintf(`send the metadata "authorization: Bearer TOKEN"; "scale token create NAME --scope %s" makes one`, FormatScope(m.scope)),
		}
	}
	return fmt.Errorf("the call needs the scope %s, %s has %s: %w", FormatScope(m.scope), who.Name, FormatScope(who.Scope), ErrScope)
}

// errPrivate refuses what only the private socket of the store is for.
var errPrivate = &refusal{
	ErrScope,
	"chains are configured through the private socket of the store alone: no token allows it",
	"run the command on the node's machine, as its user, without --node",
}
