from torch import Tensor

class InstructionSet:
    @property
    def name(self) -> str: ...
    def product(
        self, crow: Tensor, col: Tensor, values: Tensor, dense: Tensor, out: Tensor, threads: int, /
    ) -> None: ...
    def transposed_product(
        self, crow: Tensor, col: Tensor, values: Tensor, dense: Tensor, out: Tensor, threads: int, /
    ) -> None: ...
    def sampled_product(
        self, crow: Tensor, col: Tensor, left: Tensor, right: Tensor, out: Tensor, threads: int, /
    ) -> None: ...
    def topk_mask(self, scores: Tensor, keep: int, mask: Tensor, threads: int, /) -> bool: ...
    def group_norms(self, groups: Tensor, norms: Tensor, threads: int, /) -> None: ...
    def absmax(
        self, x: Tensor, row_scale: Tensor | None, positive: Tensor | None, out: Tensor, threads: int, /
    ) -> None: ...
    def quantize(
        self,
        x: Tensor,
        scale: Tensor,
        levels: int,
        at_random: bool,
        key: int,
        second_key: int,
        row_scale: Tensor | None,
        positive: Tensor | None,
        out: Tensor,
        threads: int,
        /,
    ) -> None: ...
    def positive_bits(self, x: Tensor, bits: Tensor, threads: int, /) -> None: ...
    def int8_matmul(
        self,
        a: Tensor,
        b: Tensor,
        scale: Tensor,
        row_scale: Tensor | None,
        bias: Tensor | None,
        relu: bool,
        positive: Tensor | None,
        out: Tensor,
        absmax: Tensor,
        threads: int,
        /,
    ) -> None: ...
    def spmm_copy_u(
        self,
        indptr: Tensor,
        indices: Tensor,
        x: Tensor,
        scale: Tensor | None,
        row_scale: Tensor | None,
        out: Tensor,
        absmax: Tensor,
        threads: int,
        /,
    ) -> None: ...
    def spmm_u_mul_e(
        self,
        indptr: Tensor,
        indices: Tensor,
        x: Tensor,
        e: Tensor,
        edge_ids: Tensor | None,
        scale: Tensor | None,
        out: Tensor,
        threads: int,
        /,
    ) -> None: ...
    def sddmm_u_dot_v(
        self,
        indptr: Tensor,
        indices: Tensor,
        u: Tensor,
        v: Tensor,
        edge_ids: Tensor | None,
        scale: Tensor | None,
        out: Tensor,
        threads: int,
        /,
    ) -> None: ...
    def sddmm_u_add_v(
        self,
        indptr: Tensor,
        indices: Tensor,
        u: Tensor,
        v: Tensor,
        edge_ids: Tensor | None,
        u_scale: Tensor | None,
        v_scale: Tensor | None,
        out: Tensor,
        threads: int,
        /,
    ) -> None: ...
    def edge_sum(
        self,
        indptr: Tensor,
        e: Tensor,
        edge_ids: Tensor | None,
        scale: Tensor | None,
        out: Tensor,
        threads: int,
        /,
    ) -> None: ...
    def edge_attention(
        self,
        indptr: Tensor,
        indices: Tensor,
        u: Tensor,
        v: Tensor,
        slope: float,
        out: Tensor,
        threads: int,
        /,
    ) -> None: ...
    def edge_attention_backward(
        self,
        indptr: Tensor,
        indices: Tensor,
        u: Tensor,
        v: Tensor,
        attention: Tensor,
        gradient: Tensor,
        slope: float,
        d_score: Tensor,
        d_v: Tensor,
        threads: int,
        /,
    ) -> None: ...

def instruction_sets() -> list[InstructionSet]: ...
