//! What libibverbs and librdmacm declare (`infiniband/verbs.h`, `rdma/rdma_cma.h`), as far as it is
//! used. `tests/layout.rs` holds it against the C headers.

use std::ffi::{c_char, c_int, c_uint, c_void};

pub use library::LoadError;
pub(crate) use library::{Cm, Ibv};

mod library {
    use super::*;

    /// A library, or something in it, that is not there.
    #[derive(Debug)]
    pub struct LoadError {
        library: &'static str,
        package: &'static str,
        source: libloading::Error,
    }

    impl std::fmt::Display for LoadError {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            let Self { library, package, .. } = self;
            write!(f, "RDMA needs {library}: install {package} (its name in Debian)")
        }
    }

    impl std::error::Error for LoadError {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.source)
        }
    }

    macro_rules! library {
        ($(#[$doc:meta])* $name:ident, $file:literal, $package:literal;
         $(fn $symbol:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
            $(#[$doc])*
            pub(crate) struct $name {
                $(pub(crate) $symbol: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
                /// What the functions are in.
                _library: libloading::Library,
            }

            impl $name {
                pub(crate) fn load() -> Result<Self, LoadError> {
                    let missing = |source| LoadError { library: $file, package: $package, source };
                    // SAFETY: the library's initialisers are those of a system library, which
                    // expects to be loaded at any time.
                    let library = unsafe { libloading::Library::new($file) }.map_err(missing)?;
                    Ok(Self {
                        $($symbol: {
                            let name = concat!(stringify!($symbol), "\0").as_bytes();
                            // SAFETY: the type is that of the function in its header, and the
                            // pointer lives no longer than the library beside it.
                            *unsafe { library.get(name) }.map_err(missing)?
                        },)*
                        _library: library,
                    })
                }
            }
        };
    }

    library! {
        /// libibverbs.
        Ibv, "libibverbs.so.1", "libibverbs1 and ibverbs-providers";
        fn ibv_fork_init() -> c_int;
        fn ibv_get_device_list(*mut c_int) -> *mut *mut Device;
        fn ibv_free_device_list(*mut *mut Device);
        fn ibv_get_device_name(*mut Device) -> *const c_char;
        fn ibv_get_device_guid(*mut Device) -> u64;
        fn ibv_open_device(*mut Device) -> *mut Context;
        fn ibv_close_device(*mut Context) -> c_int;
        fn ibv_query_device(*mut Context, *mut DeviceAttr) -> c_int;
        fn ibv_query_port(*mut Context, u8, *mut PortAttr) -> c_int;
        fn ibv_get_async_event(*mut Context, *mut AsyncEvent) -> c_int;
        fn ibv_ack_async_event(*mut AsyncEvent);
        fn ibv_alloc_pd(*mut Context) -> *mut Pd;
        fn ibv_dealloc_pd(*mut Pd) -> c_int;
        fn ibv_reg_mr(*mut Pd, *mut c_void, usize, c_int) -> *mut Mr;
        fn ibv_dereg_mr(*mut Mr) -> c_int;
        fn ibv_create_comp_channel(*mut Context) -> *mut CompChannel;
        fn ibv_destroy_comp_channel(*mut CompChannel) -> c_int;
        fn ibv_create_cq(*mut Context, c_int, *mut c_void, *mut CompChannel, c_int) -> *mut Cq;
        fn ibv_destroy_cq(*mut Cq) -> c_int;
        fn ibv_get_cq_event(*mut CompChannel, *mut *mut Cq, *mut *mut c_void) -> c_int;
        fn ibv_ack_cq_events(*mut Cq, c_uint);
        fn ibv_create_srq(*mut Pd, *mut SrqInitAttr) -> *mut Srq;
        fn ibv_destroy_srq(*mut Srq) -> c_int;
        fn ibv_create_qp(*mut Pd, *mut QpInitAttr) -> *mut Qp;
        fn ibv_destroy_qp(*mut Qp) -> c_int;
        fn ibv_modify_qp(*mut Qp, *mut QpAttr, c_int) -> c_int;
    }

    library! {
        /// librdmacm.
        Cm, "librdmacm.so.1", "librdmacm1";
        fn rdma_create_event_channel() -> *mut EventChannel;
        fn rdma_destroy_event_channel(*mut EventChannel);
        fn rdma_get_cm_event(*mut EventChannel, *mut *mut CmEvent) -> c_int;
        fn rdma_ack_cm_event(*mut CmEvent) -> c_int;
        fn rdma_create_id(*mut EventChannel, *mut *mut CmId, *mut c_void, c_uint) -> c_int;
        fn rdma_destroy_id(*mut CmId) -> c_int;
        fn rdma_migrate_id(*mut CmId, *mut EventChannel) -> c_int;
        fn rdma_set_option(*mut CmId, c_int, c_int, *mut c_void, usize) -> c_int;
        fn rdma_bind_addr(*mut CmId, *mut c_void) -> c_int;
        fn rdma_listen(*mut CmId, c_int) -> c_int;
        fn rdma_resolve_addr(*mut CmId, *mut c_void, *mut c_void, c_int) -> c_int;
        fn rdma_resolve_route(*mut CmId, c_int) -> c_int;
        fn rdma_create_qp(*mut CmId, *mut Pd, *mut QpInitAttr) -> c_int;
        fn rdma_destroy_qp(*mut CmId);
        fn rdma_connect(*mut CmId, *mut ConnParam) -> c_int;
        fn rdma_accept(*mut CmId, *mut ConnParam) -> c_int;
        fn rdma_reject(*mut CmId, *const c_void, u8) -> c_int;
        fn rdma_disconnect(*mut CmId) -> c_int;
        fn rdma_get_devices(*mut c_int) -> *mut *mut Context;
        fn rdma_free_devices(*mut *mut Context);
    }
}

/// Of a device, what stands before its paths.
#[repr(C)]
pub(crate) struct Device {
    ops: [*mut c_void; 2],
    pub(crate) node_type: c_int,
    pub(crate) transport_type: c_int,
    pub(crate) name: [c_char; 64],
    pub(crate) dev_name: [c_char; 64],
}

type Old = *mut c_void;
type PostSend = unsafe extern "C" fn(*mut Qp, *mut SendWr, *mut *mut SendWr) -> c_int;
type PostRecv = unsafe extern "C" fn(*mut Qp, *mut RecvWr, *mut *mut RecvWr) -> c_int;
type PostSrqRecv = unsafe extern "C" fn(*mut Srq, *mut RecvWr, *mut *mut RecvWr) -> c_int;

/// `ibv_context_ops`.
#[repr(C)]
pub(crate) struct ContextOps {
    before: [Old; 11],
    pub(crate) poll_cq: unsafe extern "C" fn(*mut Cq, c_int, *mut Wc) -> c_int,
    pub(crate) req_notify_cq: unsafe extern "C" fn(*mut Cq, c_int) -> c_int,
    cq: [Old; 3],
    srq: [Old; 4],
    pub(crate) post_srq_recv: PostSrqRecv,
    qp: [Old; 4],
    pub(crate) post_send: PostSend,
    pub(crate) post_recv: PostRecv,
    after: [Old; 5],
}

/// `ibv_context`, up to what is used.
#[repr(C)]
pub(crate) struct Context {
    pub(crate) device: *mut Device,
    pub(crate) ops: ContextOps,
    pub(crate) cmd_fd: c_int,
    pub(crate) async_fd: c_int,
}

/// `ibv_device_attr`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct DeviceAttr {
    pub(crate) fw_ver: [u8; 64],
    pub(crate) node_guid: u64,
    pub(crate) sys_image_guid: u64,
    pub(crate) max_mr_size: u64,
    pub(crate) page_size_cap: u64,
    pub(crate) vendor_id: u32,
    pub(crate) vendor_part_id: u32,
    pub(crate) hw_ver: u32,
    pub(crate) max_qp: c_int,
    pub(crate) max_qp_wr: c_int,
    pub(crate) device_cap_flags: c_uint,
    pub(crate) max_sge: c_int,
    pub(crate) max_sge_rd: c_int,
    pub(crate) max_cq: c_int,
    pub(crate) max_cqe: c_int,
    pub(crate) max_mr: c_int,
    pub(crate) max_pd: c_int,
    unused: [c_int; 17],
    pub(crate) max_srq: c_int,
    pub(crate) max_srq_wr: c_int,
    pub(crate) max_srq_sge: c_int,
    pub(crate) max_pkeys: u16,
    pub(crate) local_ca_ack_delay: u8,
    pub(crate) phys_port_cnt: u8,
}

/// `ibv_port_attr`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct PortAttr {
    pub(crate) state: c_int,
    pub(crate) max_mtu: c_int,
    pub(crate) active_mtu: c_int,
    pub(crate) gid_tbl_len: c_int,
    pub(crate) port_cap_flags: u32,
    pub(crate) max_msg_sz: u32,
    pub(crate) bad_pkey_cntr: u32,
    pub(crate) qkey_viol_cntr: u32,
    pub(crate) pkey_tbl_len: u16,
    pub(crate) lid: u16,
    pub(crate) sm_lid: u16,
    pub(crate) lmc: u8,
    pub(crate) max_vl_num: u8,
    pub(crate) sm_sl: u8,
    pub(crate) subnet_timeout: u8,
    pub(crate) init_type_reply: u8,
    pub(crate) active_width: u8,
    pub(crate) active_speed: u8,
    pub(crate) phys_state: u8,
    pub(crate) link_layer: u8,
    pub(crate) flags: u8,
    pub port_cap_flags2: u16,
    pub(crate) active_speed_ex: u32,
}

/// `ibv_pd`: only ever behind a pointer.
#[repr(C)]
pub(crate) struct Pd {
    opaque: [u8; 0],
}

/// `ibv_mr`.
#[repr(C)]
pub(crate) struct Mr {
    pub(crate) context: *mut Context,
    pub(crate) pd: *mut Pd,
    pub(crate) addr: *mut c_void,
    pub(crate) length: usize,
    pub(crate) handle: u32,
    pub(crate) lkey: u32,
    pub(crate) rkey: u32,
}

/// `ibv_comp_channel`.
#[repr(C)]
pub(crate) struct CompChannel {
    pub(crate) context: *mut Context,
    pub(crate) fd: c_int,
}

/// `ibv_cq`, up to what is used.
#[repr(C)]
pub(crate) struct Cq {
    pub(crate) context: *mut Context,
    pub(crate) channel: *mut CompChannel,
    pub(crate) cq_context: *mut c_void,
    pub(crate) handle: u32,
    pub(crate) cqe: c_int,
}

/// `ibv_srq`, up to what is used.
#[repr(C)]
pub(crate) struct Srq {
    pub(crate) context: *mut Context,
}

/// `ibv_qp`, up to what is used.
#[repr(C)]
pub(crate) struct Qp {
    pub(crate) context: *mut Context,
    pub(crate) qp_context: *mut c_void,
    pub(crate) pd: *mut Pd,
    pub(crate) send_cq: *mut Cq,
    pub(crate) recv_cq: *mut Cq,
    pub(crate) srq: *mut Srq,
    pub(crate) handle: u32,
    pub(crate) qp_num: u32,
}

/// `ibv_wc`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Wc {
    pub(crate) wr_id: u64,
    pub(crate) status: c_uint,
    pub(crate) opcode: c_uint,
    pub(crate) vendor_err: u32,
    pub(crate) byte_len: u32,
    pub(crate) imm_data: u32,
    pub(crate) qp_num: u32,
    pub(crate) src_qp: u32,
    pub(crate) wc_flags: c_uint,
    pub(crate) pkey_index: u16,
    pub(crate) slid: u16,
    pub(crate) sl: u8,
    pub(crate) dlid_path_bits: u8,
}

/// `ibv_sge`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Sge {
    pub(crate) addr: u64,
    pub(crate) length: u32,
    pub(crate) lkey: u32,
}

/// `ibv_recv_wr`.
#[repr(C)]
pub(crate) struct RecvWr {
    pub(crate) wr_id: u64,
    pub(crate) next: *mut Self,
    pub(crate) sg_list: *mut Sge,
    pub(crate) num_sge: c_int,
}

/// `ibv_send_wr`, whose unions are used by no operation that we have.
#[repr(C)]
pub(crate) struct SendWr {
    pub(crate) wr_id: u64,
    pub(crate) next: *mut Self,
    pub(crate) sg_list: *mut Sge,
    pub(crate) num_sge: c_int,
    pub(crate) opcode: c_uint,
    pub(crate) send_flags: c_uint,
    pub(crate) imm_data: u32,
    pub(crate) unions: [u64; 11],
}

/// `ibv_qp_cap`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct QpCap {
    pub(crate) max_send_wr: u32,
    pub(crate) max_recv_wr: u32,
    pub(crate) max_send_sge: u32,
    pub(crate) max_recv_sge: u32,
    pub(crate) max_inline_data: u32,
}

/// `ibv_qp_init_attr`.
#[repr(C)]
pub(crate) struct QpInitAttr {
    pub(crate) qp_context: *mut c_void,
    pub(crate) send_cq: *mut Cq,
    pub(crate) recv_cq: *mut Cq,
    pub(crate) srq: *mut Srq,
    pub(crate) cap: QpCap,
    pub(crate) qp_type: c_uint,
    pub(crate) sq_sig_all: c_int,
}

/// `ibv_srq_init_attr`.
#[repr(C)]
pub(crate) struct SrqInitAttr {
    pub(crate) srq_context: *mut c_void,
    pub(crate) max_wr: u32,
    pub(crate) max_sge: u32,
    pub(crate) srq_limit: u32,
}

/// `ibv_ah_attr` with its `ibv_global_route`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct AhAttr {
    /// Aligned as the union with two 64-bit numbers that it is in C.
    pub(crate) dgid: [u64; 2],
    pub(crate) flow_label: u32,
    pub(crate) sgid_index: u8,
    pub(crate) hop_limit: u8,
    pub(crate) traffic_class: u8,
    pub(crate) dlid: u16,
    pub(crate) sl: u8,
    pub(crate) src_path_bits: u8,
    pub(crate) static_rate: u8,
    pub(crate) is_global: u8,
    pub(crate) port_num: u8,
}

/// `ibv_qp_attr`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct QpAttr {
    pub(crate) qp_state: c_uint,
    pub(crate) cur_qp_state: c_uint,
    pub(crate) path_mtu: c_uint,
    pub(crate) path_mig_state: c_uint,
    pub(crate) qkey: u32,
    pub(crate) rq_psn: u32,
    pub(crate) sq_psn: u32,
    pub(crate) dest_qp_num: u32,
    pub(crate) qp_access_flags: c_uint,
    pub(crate) cap: QpCap,
    pub(crate) ah_attr: AhAttr,
    pub(crate) alt_ah_attr: AhAttr,
    pub(crate) pkey_index: u16,
    pub(crate) alt_pkey_index: u16,
    pub(crate) en_sqd_async_notify: u8,
    pub(crate) sq_draining: u8,
    pub(crate) max_rd_atomic: u8,
    pub(crate) max_dest_rd_atomic: u8,
    pub(crate) min_rnr_timer: u8,
    pub(crate) port_num: u8,
    pub(crate) timeout: u8,
    pub(crate) retry_cnt: u8,
    pub(crate) rnr_retry: u8,
    pub(crate) alt_port_num: u8,
    pub(crate) alt_timeout: u8,
    pub(crate) rate_limit: u32,
}

/// `ibv_async_event`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct AsyncEvent {
    pub(crate) element: *mut c_void,
    pub(crate) event_type: c_uint,
}

/// `rdma_event_channel`.
#[repr(C)]
pub(crate) struct EventChannel {
    pub(crate) fd: c_int,
}

/// `rdma_cm_id`, up to what is used.
#[repr(C)]
pub(crate) struct CmId {
    pub(crate) verbs: *mut Context,
    pub(crate) channel: *mut EventChannel,
    pub(crate) context: *mut c_void,
    pub(crate) qp: *mut Qp,
    pub(crate) src_addr: [u64; 16],
    pub(crate) dst_addr: [u64; 16],
}

/// `rdma_conn_param`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ConnParam {
    pub(crate) private_data: *const c_void,
    pub(crate) private_data_len: u8,
    pub(crate) responder_resources: u8,
    pub(crate) initiator_depth: u8,
    pub(crate) flow_control: u8,
    pub(crate) retry_count: u8,
    pub(crate) rnr_retry_count: u8,
    pub(crate) srq: u8,
    pub(crate) qp_num: u32,
}

/// `rdma_cm_event`, with the parameters of a connection.
#[repr(C)]
pub(crate) struct CmEvent {
    pub(crate) id: *mut CmId,
    pub(crate) listen_id: *mut CmId,
    pub(crate) event: c_uint,
    pub(crate) status: c_int,
    pub(crate) conn: ConnParam,
}

pub(crate) const QPT_RC: c_uint = 2;
pub(crate) const WR_SEND: c_uint = 2;
pub(crate) const SEND_SIGNALED: c_uint = 1 << 1;
pub(crate) const SEND_INLINE: c_uint = 1 << 3;
pub(crate) const ACCESS_LOCAL_WRITE: c_int = 1;
pub(crate) const PS_TCP: c_uint = 0x0106;
pub(crate) const OPTION_ID: c_int = 0;
pub(crate) const OPTION_ID_TOS: c_int = 0;
pub(crate) const OPTION_ID_REUSEADDR: c_int = 1;

pub(crate) mod qps {
    use std::ffi::c_uint;
    pub(crate) const INIT: c_uint = 1;
    pub(crate) const RTR: c_uint = 2;
    pub(crate) const RTS: c_uint = 3;
    pub(crate) const ERR: c_uint = 6;
}

pub(crate) mod mask {
    use std::ffi::c_int;
    pub(crate) const STATE: c_int = 1;
    pub(crate) const ACCESS_FLAGS: c_int = 1 << 3;
    pub(crate) const PKEY_INDEX: c_int = 1 << 4;
    pub(crate) const PORT: c_int = 1 << 5;
    pub(crate) const AV: c_int = 1 << 7;
    pub(crate) const PATH_MTU: c_int = 1 << 8;
    pub(crate) const TIMEOUT: c_int = 1 << 9;
    pub(crate) const RETRY_CNT: c_int = 1 << 10;
    pub(crate) const RNR_RETRY: c_int = 1 << 11;
    pub(crate) const RQ_PSN: c_int = 1 << 12;
    pub(crate) const MAX_RD_ATOMIC: c_int = 1 << 13;
    pub(crate) const MIN_RNR_TIMER: c_int = 1 << 15;
    pub(crate) const SQ_PSN: c_int = 1 << 16;
    pub(crate) const MAX_DEST_RD_ATOMIC: c_int = 1 << 17;
    pub(crate) const DEST_QPN: c_int = 1 << 20;
}
