// The stub's executable, embedded.
.section .rodata
.globl cowbird_stub_image, cowbird_stub_image_end
.balign 16
cowbird_stub_image:
    .incbin COWBIRD_STUB_FILE
cowbird_stub_image_end:
.section .note.GNU-stack,"",@progbits
