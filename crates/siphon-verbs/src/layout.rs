//! What C makes of the structs in `ffi`, asked of a C compiler.

use std::fmt::Write as _;
use std::mem::offset_of;
use std::process::{Command, Stdio};

use crate::ffi;

const HEADERS: [&str; 3] = ["stddef.h", "infiniband/verbs.h", "rdma/rdma_cma.h"];

macro_rules! expressions {
    ($($of:ident $c:literal { $($field:ident)* } $($whole:literal)?;)*) => {
        [$(
            $((format!("offsetof(struct {}, {})", $c, stringify!($field)), offset_of!(ffi::$of, $field)),)*
            $((format!("sizeof(struct {}) * {}", $c, $whole), size_of::<ffi::$of>()),)?
        )*]
    };
}

/// What to ask, and what we hold true. Structs of which we have the front alone have no size.
fn expressions() -> Vec<(String, usize)> {
    let fields = expressions! {
        Device "ibv_device" { node_type transport_type name dev_name };
        Context "ibv_context" { device ops cmd_fd async_fd };
        ContextOps "ibv_context_ops" { poll_cq req_notify_cq post_srq_recv post_send post_recv } 1;
        DeviceAttr "ibv_device_attr" {
            fw_ver max_mr_size max_qp max_qp_wr max_sge max_cq max_cqe max_mr max_srq max_srq_wr
            phys_port_cnt
        } 1;
        PortAttr "ibv_port_attr" {
            state max_mtu active_mtu gid_tbl_len max_msg_sz lid link_layer port_cap_flags2
        };
        Mr "ibv_mr" { context pd addr length lkey rkey } 1;
        CompChannel "ibv_comp_channel" { context fd };
        Cq "ibv_cq" { context channel handle cqe };
        Srq "ibv_srq" { context };
        Qp "ibv_qp" { context send_cq recv_cq srq handle qp_num };
        Wc "ibv_wc" { wr_id status opcode vendor_err byte_len qp_num src_qp wc_flags slid } 1;
        Sge "ibv_sge" { addr length lkey } 1;
        RecvWr "ibv_recv_wr" { wr_id next sg_list num_sge } 1;
        SendWr "ibv_send_wr" { wr_id next sg_list num_sge opcode send_flags imm_data } 1;
        QpCap "ibv_qp_cap" { max_send_wr max_recv_wr max_send_sge max_recv_sge max_inline_data } 1;
        QpInitAttr "ibv_qp_init_attr" { qp_context send_cq recv_cq srq cap qp_type sq_sig_all } 1;
        SrqInitAttr "ibv_srq_init_attr" { srq_context } 1;
        AhAttr "ibv_ah_attr" { dlid sl src_path_bits static_rate is_global port_num } 1;
        QpAttr "ibv_qp_attr" {
            qp_state path_mtu rq_psn sq_psn dest_qp_num qp_access_flags cap ah_attr pkey_index
            max_rd_atomic max_dest_rd_atomic min_rnr_timer port_num timeout retry_cnt rnr_retry
        } 1;
        AsyncEvent "ibv_async_event" { element event_type } 1;
        EventChannel "rdma_event_channel" { fd } 1;
        CmId "rdma_cm_id" { verbs channel context qp };
        ConnParam "rdma_conn_param" {
            private_data private_data_len responder_resources initiator_depth retry_count
            rnr_retry_count srq qp_num
        } 1;
        CmEvent "rdma_cm_event" { id listen_id event status };
    };
    let also = [
        ("offsetof(struct rdma_cm_id, route.addr.src_addr)", offset_of!(ffi::CmId, src_addr)),
        ("offsetof(struct rdma_cm_id, route.addr.dst_addr)", offset_of!(ffi::CmId, dst_addr)),
        ("offsetof(struct rdma_cm_event, param.conn)", offset_of!(ffi::CmEvent, conn)),
        ("offsetof(struct ibv_ah_attr, grh.dgid)", offset_of!(ffi::AhAttr, dgid)),
        ("offsetof(struct ibv_ah_attr, grh.sgid_index)", offset_of!(ffi::AhAttr, sgid_index)),
        ("offsetof(struct ibv_ah_attr, grh.hop_limit)", offset_of!(ffi::AhAttr, hop_limit)),
        ("offsetof(struct ibv_ah_attr, grh.traffic_class)", offset_of!(ffi::AhAttr, traffic_class)),
        ("IBV_WR_SEND", ffi::WR_SEND as usize),
        ("IBV_SEND_SIGNALED", ffi::SEND_SIGNALED as usize),
        ("IBV_SEND_INLINE", ffi::SEND_INLINE as usize),
        ("IBV_QPT_RC", ffi::QPT_RC as usize),
        ("IBV_QPS_INIT", ffi::qps::INIT as usize),
        ("IBV_QPS_RTR", ffi::qps::RTR as usize),
        ("IBV_QPS_RTS", ffi::qps::RTS as usize),
        ("IBV_QPS_ERR", ffi::qps::ERR as usize),
        ("IBV_QP_AV", ffi::mask::AV as usize),
        ("IBV_QP_DEST_QPN", ffi::mask::DEST_QPN as usize),
        ("IBV_QP_MAX_DEST_RD_ATOMIC", ffi::mask::MAX_DEST_RD_ATOMIC as usize),
        ("IBV_QP_SQ_PSN", ffi::mask::SQ_PSN as usize),
        ("RDMA_PS_TCP", ffi::PS_TCP as usize),
        ("RDMA_OPTION_ID_REUSEADDR", ffi::OPTION_ID_REUSEADDR as usize),
        ("IBV_ACCESS_LOCAL_WRITE", ffi::ACCESS_LOCAL_WRITE as usize),
        ("IBV_WC_RETRY_EXC_ERR", 12),
        ("RDMA_CM_EVENT_ESTABLISHED", 9),
        ("IBV_EVENT_QP_LAST_WQE_REACHED", 16),
    ];
    let also = also.into_iter().map(|(c, ours)| (c.to_owned(), ours));
    fields.into_iter().chain(also).collect()
}

#[test]
fn structs_are_those_of_the_c_headers() {
    let mut program = String::new();
    for header in HEADERS {
        let _ = writeln!(program, "#include <{header}>");
    }
    let expressions = expressions();
    for (c, ours) in &expressions {
        let _ = writeln!(program, "_Static_assert({c} == {ours}, \"{c} is not {ours}\");");
    }
    let headers: String = HEADERS.map(|header| format!("#include <{header}>\n")).concat();
    if let Err(reason) = compile(&headers) {
        let hint = "a C compiler, libibverbs-dev, librdmacm-dev";
        assert!(std::env::var_os("CI").is_none(), "needs {hint}: {reason}");
        println!("SKIPPED: needs {hint}: {reason}");
        return;
    }
    compile(&program).unwrap_or_else(|wrong| panic!("{wrong}"));
    println!("{} facts of the headers", expressions.len());
}

/// What the compiler has to say against it.
fn compile(program: &str) -> Result<(), String> {
    use std::io::Write as _;
    let mut command = Command::new("cc");
    command.args(["-x", "c", "-fsyntax-only", "-"]);
    command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(program.as_bytes()).map_err(|error| error.to_string())?;
    drop(stdin);
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
